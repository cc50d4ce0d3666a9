// Cells of the ECP5 by their definitions. An INIT is a table of Z, or of what the carry cell adds its carry to, for each {D, C, B, A}.

module LUT4 #(
  parameter [15:0] INIT = 16'h0000
) (
  input A, B, C, D,
  output Z
);
  assign Z = INIT[{D, C, B, A}];
endmodule

module PFUMX (
  input ALUT, BLUT, C0,
  output Z
);
  assign Z = C0 ? ALUT : BLUT;
endmodule

module L6MUX21 (
  input D0, D1, SD,
  output Z
);
  assign Z = SD ? D1 : D0;
endmodule

// Two bits of a sum. The carry goes on where the table of four inputs is one; elsewhere it is what the table of A and B alone says, which
// is its first four rows. Nothing is injected.
module CCU2C #(
  parameter [15:0] INIT0 = 16'h0000,
  parameter [15:0] INIT1 = 16'h0000,
  parameter INJECT1_0 = "NO",
  parameter INJECT1_1 = "NO"
) (
  input CIN, A0, B0, C0, D0, A1, B1, C1, D1,
  output S0, S1, COUT
);
  wire four0 = INIT0[{D0, C0, B0, A0}], four1 = INIT1[{D1, C1, B1, A1}];
  wire two0 = INIT0[{2'b00, B0, A0}], two1 = INIT1[{2'b00, B1, A1}];
  wire between = four0 ? CIN : two0;
  assign S0 = four0 ^ CIN;
  assign S1 = four1 ^ between;
  assign COUT = four1 ? between : two1;
endmodule
