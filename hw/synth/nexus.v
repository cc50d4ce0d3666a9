// What nextpnr-nexus asks for behind synth_nexus of Yosys. No carry into a carry cell that begins a chain: ABC9 connects a zero there,
// which nextpnr refuses; the cell's own look-up tables begin the carry, whatever comes in. Constants as such, so that it is seen.
module VLO (output Z);
  assign Z = 1'b0;
endmodule

module VHI (output Z);
  assign Z = 1'b1;
endmodule

module CCU2 (
  input CIN, A0, B0, C0, D0, A1, B1, C1, D1,
  output S0, S1, COUT
);
  parameter INJECT = "YES";
  parameter INIT0 = "0x0000";
  parameter INIT1 = "0x0000";
  parameter _TECHMAP_CONSTMSK_CIN_ = 0;
  wire _TECHMAP_FAIL_ = !_TECHMAP_CONSTMSK_CIN_;
  CCU2 #(.INJECT(INJECT), .INIT0(INIT0), .INIT1(INIT1)) begins (
    .A0(A0), .B0(B0), .C0(C0), .D0(D0), .A1(A1), .B1(B1), .C1(C1), .D1(D1), .S0(S0), .S1(S1), .COUT(COUT)
  );
endmodule

// The pad of the clock: its buffer is put where it can be reached, as nextpnr chooses one to which it finds no way with some seeds.
module IB (input I, output O);
  wire received;
  IB pad (.I(I), .O(received));
  (* BEL = "X49/Y0/DCC_T0" *) DCC buffer (.CLKI(received), .CLKO(O));
endmodule
