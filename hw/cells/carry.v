// Sums of which an operand is chosen on the way into the carry chain. Define KAPPA_RTL_ECP5 for that family's carry cells, in whose look-up
// tables the choice costs nothing, which synthesis does not find; otherwise plain Verilog.

// o = a - (b | c)
module kappa_rtl_carry_subtract #(
  parameter WIDTH = 17
) (
  input wire [WIDTH-1:0] a,
  input wire [WIDTH-1:0] b,
  input wire [WIDTH-1:0] c,
  output wire [WIDTH-1:0] o
);
`ifdef KAPPA_RTL_ECP5
  localparam CELLS = (WIDTH + 1) / 2;
  wire [2*CELLS-1:0] x = a;
  wire [2*CELLS-1:0] y = b;
  wire [2*CELLS-1:0] z = c;
  wire [2*CELLS-1:0] s;
  wire [CELLS:0] carry;
  assign carry[0] = 1'b1;
  assign o = s[WIDTH-1:0];
  genvar i;
  generate
    for (i = 0; i < CELLS; i = i + 1) begin : g_cells
      // A table's rows with D = 1 are a == (b | c), where the carry goes on; the first four are a, the carry elsewhere.
      CCU2C #(.INIT0(16'hA9AA), .INIT1(16'hA9AA), .INJECT1_0("NO"), .INJECT1_1("NO")) sum (
        .CIN(carry[i]), .A0(x[2*i]), .B0(y[2*i]), .C0(z[2*i]), .D0(1'b1),
        .A1(x[2*i+1]), .B1(y[2*i+1]), .C1(z[2*i+1]), .D1(1'b1),
        .S0(s[2*i]), .S1(s[2*i+1]), .COUT(carry[i+1])
      );
    end
  endgenerate
`else
  assign o = a - (b | c);
`endif
endmodule

// o = a + (s ? c : b)
module kappa_rtl_carry_add #(
  parameter WIDTH = 10
) (
  input wire [WIDTH-1:0] a,
  input wire [WIDTH-1:0] b,
  input wire [WIDTH-1:0] c,
  input wire s,
  output wire [WIDTH-1:0] o
);
`ifdef KAPPA_RTL_ECP5
  localparam CELLS = (WIDTH + 1) / 2;
  wire [2*CELLS-1:0] x = a;
  wire [2*CELLS-1:0] y = b;
  wire [2*CELLS-1:0] z = c;
  wire [2*CELLS-1:0] t;
  wire [CELLS:0] carry;
  assign carry[0] = 1'b0;
  assign o = t[WIDTH-1:0];
  genvar i;
  generate
    for (i = 0; i < CELLS; i = i + 1) begin : g_cells
      // a ^ (s ? c : b), which with b = c = 0 is a: the first four rows are the carry where it does not go on.
      CCU2C #(.INIT0(16'h569A), .INIT1(16'h569A), .INJECT1_0("NO"), .INJECT1_1("NO")) sum (
        .CIN(carry[i]), .A0(x[2*i]), .B0(s), .C0(y[2*i]), .D0(z[2*i]),
        .A1(x[2*i+1]), .B1(s), .C1(y[2*i+1]), .D1(z[2*i+1]),
        .S0(t[2*i]), .S1(t[2*i+1]), .COUT(carry[i+1])
      );
    end
  endgenerate
`else
  assign o = a + (s ? c : b);
`endif
endmodule

// o = a + b + half / 2, a tie to even: what is dropped below the sum is one bit.
module kappa_rtl_carry_round #(
  parameter WIDTH = 16
) (
  input wire [WIDTH-1:0] a,
  input wire [WIDTH-1:0] b,
  input wire half,
  output wire [WIDTH-1:0] o
);
`ifdef KAPPA_RTL_ECP5
  localparam CELLS = (WIDTH + 1) / 2;
  wire [2*CELLS-1:0] x = a;
  wire [2*CELLS-1:0] y = b;
  wire [2*CELLS-1:0] s;
  wire [CELLS:0] carry;
  assign carry[0] = 1'b0;
  assign o = s[WIDTH-1:0];
  genvar i;
  generate
    for (i = 0; i < CELLS; i = i + 1) begin : g_cells
      // The lowest bit is (a ^ b) & ~half, with C = half; where it is zero there is a carry if a | b. The others are a plain sum.
      CCU2C #(.INIT0(i == 0 ? 16'h060E : 16'h96AA), .INIT1(16'h96AA), .INJECT1_0("NO"), .INJECT1_1("NO")) sum (
        .CIN(carry[i]), .A0(x[2*i]), .B0(y[2*i]), .C0(i == 0 ? half : 1'b0), .D0(1'b1),
        .A1(x[2*i+1]), .B1(y[2*i+1]), .C1(1'b0), .D1(1'b1),
        .S0(s[2*i]), .S1(s[2*i+1]), .COUT(carry[i+1])
      );
    end
  endgenerate
`else
  wire [WIDTH:0] doubled = {a, 1'b1} + {b, half & (a[0] ^ b[0])};
  assign o = doubled[WIDTH:1];
`endif
endmodule
