// One carry chain. Bit i of `o` is p ^ carry; carry goes on where p is high, and where it is low g is the next one:
// p = TABLE[{d, c, b, a}], g = TABLE[{0, 0, b, a}]. Define KAPPA_RTL_ECP5 for that family's carry cells, which look
// at more bits than synthesis gives them; otherwise plain Verilog.
module kappa_rtl_chain #(
  parameter WIDTH = 2,
  parameter [15:0] TABLE = 16'h96aa
) (
  input wire [WIDTH-1:0] a,
  input wire [WIDTH-1:0] b,
  input wire [WIDTH-1:0] c,
  input wire [WIDTH-1:0] d,
  output wire [WIDTH-1:0] o
);
`ifdef KAPPA_RTL_ECP5
  localparam CELLS = (WIDTH + 1) / 2;
  wire [2*CELLS-1:0] w = a;
  wire [2*CELLS-1:0] x = b;
  wire [2*CELLS-1:0] y = c;
  wire [2*CELLS-1:0] z = d;
  wire [2*CELLS-1:0] s;
  wire [CELLS:0] carry;
  assign carry[0] = 1'b0;
  assign o = s[WIDTH-1:0];
  genvar i;
  generate
    for (i = 0; i < CELLS; i = i + 1) begin : g_cell
      CCU2C #(.INIT0(TABLE), .INIT1(TABLE), .INJECT1_0("NO"), .INJECT1_1("NO")) sum (
        .CIN(carry[i]), .COUT(carry[i+1]), .S0(s[2*i]), .S1(s[2*i+1]),
        .A0(w[2*i]), .B0(x[2*i]), .C0(y[2*i]), .D0(z[2*i]), .A1(w[2*i+1]), .B1(x[2*i+1]), .C1(y[2*i+1]), .D1(z[2*i+1])
      );
    end
  endgenerate
`else
  wire [WIDTH-1:0] p, g;
  genvar i;
  generate
    for (i = 0; i < WIDTH; i = i + 1) begin : g_bit
      assign p[i] = TABLE[{d[i], c[i], b[i], a[i]}];
      assign g[i] = TABLE[{2'b00, b[i], a[i]}];
    end
  endgenerate
  // Two numbers whose sum it is: both bits g where p is low, one bit where it is high.
  wire [WIDTH-1:0] one = p | g;
  wire [WIDTH-1:0] other = ~p & g;
  assign o = one + other;
`endif
endmodule
