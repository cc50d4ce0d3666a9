// A gate a bit, o = TABLE[{d, c, b, a}], which synthesis shall neither merge with its like nor take apart. Define KAPPA_RTL_ECP5 for that
// family's look-up tables, one each; otherwise plain Verilog.
module kappa_rtl_gate #(
  parameter WIDTH = 2,
  parameter [15:0] TABLE = 16'haaaa
) (
  input wire [WIDTH-1:0] a,
  input wire [WIDTH-1:0] b,
  input wire [WIDTH-1:0] c,
  input wire [WIDTH-1:0] d,
  output wire [WIDTH-1:0] o
);
  genvar i;
  generate
    for (i = 0; i < WIDTH; i = i + 1) begin : g_bit
`ifdef KAPPA_RTL_ECP5
      LUT4 #(.INIT(TABLE)) lut (.A(a[i]), .B(b[i]), .C(c[i]), .D(d[i]), .Z(o[i]));
`else
      assign o[i] = TABLE[{d[i], c[i], b[i], a[i]}];
`endif
    end
  endgenerate
endmodule
