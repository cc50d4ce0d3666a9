// o = i[select]: one of up to eight bits; if there are not so many, nobody knows which. Define KAPPA_RTL_ECP5 for that family's multiplexers behind its
// look-up tables, which synthesis finds for functions of up to seven bits only; otherwise plain Verilog.
module kappa_rtl_choose #(
  parameter COUNT = 8
) (
  input wire [COUNT-1:0] i,
  input wire [2:0] select,
  output wire o
);
  wire [7:0] of = i;
`ifdef KAPPA_RTL_ECP5
  wire [3:0] two;
  wire [1:0] four;
  genvar k;
  generate
    for (k = 0; k < 4; k = k + 1) begin : g_two
      if (2 * k < COUNT) begin : g_lut
        LUT4 #(.INIT(16'hcaca)) lut (.A(of[2*k]), .B(of[2*k+1]), .C(select[0]), .D(1'b0), .Z(two[k]));
      end else begin : g_none
        assign two[k] = 1'b0;
      end
    end
    for (k = 0; k < 2; k = k + 1) begin : g_four
      if (4 * k + 2 < COUNT) begin : g_mux
        PFUMX mux (.ALUT(two[2*k+1]), .BLUT(two[2*k]), .C0(select[1]), .Z(four[k]));
      end else begin : g_wire
        assign four[k] = two[2*k];
      end
    end
    if (COUNT > 6) begin : g_last_mux
      L6MUX21 mux (.D0(four[0]), .D1(four[1]), .SD(select[2]), .Z(o));
    end else if (COUNT > 4) begin : g_last_choice
      assign o = select[2] ? two[2] : four[0];
    end else begin : g_last_wire
      assign o = four[0];
    end
  endgenerate
`else
  assign o = of[select];
`endif
endmodule
