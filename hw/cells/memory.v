// A word written and a word read a cycle; what is read passes an output register. No word may be read in the cycle in which
// it is written. Define KAPPA_RTL_ECP5 for the block memories of that family with this register inside them; otherwise, and for so few
// words that look-up tables hold them, or more than a block has, plain Verilog.
module kappa_rtl_memory #(
  parameter WIDTH = 36,
  parameter DEPTH = 512,
  parameter ADDRESS = 9
) (
  input wire clk,
  input wire write,
  input wire [ADDRESS-1:0] write_address,
  input wire [WIDTH-1:0] write_data,
  input wire read,
  input wire [ADDRESS-1:0] read_address,
  input wire read_output,
  output wire [WIDTH-1:0] read_data
);
`ifdef KAPPA_RTL_ECP5
  localparam BLOCK = DEPTH > 16 && DEPTH <= 16384;
`else
  localparam BLOCK = 0;
`endif
  generate
    if (BLOCK) begin : g_block
`ifdef KAPPA_RTL_ECP5
      // Bits a block, and how far its address is shifted: a word of 2**n bits, without counting the ninth ones.
      localparam BITS = DEPTH <= 512 ? 36 : DEPTH <= 1024 ? 18 : DEPTH <= 2048 ? 9 : DEPTH <= 4096 ? 4 : DEPTH <= 8192 ? 2 : 1;
      localparam SHIFT = DEPTH <= 512 ? 5 : DEPTH <= 1024 ? 4 : DEPTH <= 2048 ? 3 : DEPTH <= 4096 ? 2 : DEPTH <= 8192 ? 1 : 0;
      localparam BLOCKS = (WIDTH + BITS - 1) / BITS;
      // The lowest address bits of a wide write are its byte enables.
      wire [13:0] a = (write_address << SHIFT) | (BITS == 36 ? 14'd15 : BITS == 18 ? 14'd3 : 14'd0);
      wire [13:0] b = read_address << SHIFT;
      wire [BLOCKS*BITS-1:0] d = write_data;
      wire [BLOCKS*BITS-1:0] q;
      assign read_data = q[WIDTH-1:0];
      genvar i;
      for (i = 0; i < BLOCKS; i = i + 1) begin : g_blocks
        wire [35:0] di = d[i*BITS +: BITS];
        wire [17:0] da, db;
        // A word of 36 bits takes the data of both ports, and then all writes are on A and all reads on B.
        assign q[i*BITS +: BITS] = BITS == 36 ? {db, da} : db;
        DP16KD #(
          .DATA_WIDTH_A(BITS), .DATA_WIDTH_B(BITS), .REGMODE_A("OUTREG"), .REGMODE_B("OUTREG"),
          .CLKAMUX("CLKA"), .CLKBMUX("CLKB"), .CSDECODE_A("0b000"), .CSDECODE_B("0b000"),
          .WRITEMODE_A("NORMAL"), .WRITEMODE_B("NORMAL"), .RESETMODE("SYNC"), .ASYNC_RESET_RELEASE("SYNC"), .GSR("DISABLED")
        ) memory (
          .CLKA(clk), .CEA(write), .WEA(1'b1), .OCEA(read_output), .RSTA(1'b0), .CSA2(1'b0), .CSA1(1'b0), .CSA0(1'b0),
          .CLKB(clk), .CEB(read), .WEB(1'b0), .OCEB(read_output), .RSTB(1'b0), .CSB2(1'b0), .CSB1(1'b0), .CSB0(1'b0),
          .ADA13(a[13]), .ADA12(a[12]), .ADA11(a[11]), .ADA10(a[10]), .ADA9(a[9]), .ADA8(a[8]), .ADA7(a[7]),
          .ADA6(a[6]), .ADA5(a[5]), .ADA4(a[4]), .ADA3(a[3]), .ADA2(a[2]), .ADA1(a[1]), .ADA0(a[0]),
          .ADB13(b[13]), .ADB12(b[12]), .ADB11(b[11]), .ADB10(b[10]), .ADB9(b[9]), .ADB8(b[8]), .ADB7(b[7]),
          .ADB6(b[6]), .ADB5(b[5]), .ADB4(b[4]), .ADB3(b[3]), .ADB2(b[2]), .ADB1(b[1]), .ADB0(b[0]),
          .DIA17(di[17]), .DIA16(di[16]), .DIA15(di[15]), .DIA14(di[14]), .DIA13(di[13]), .DIA12(di[12]),
          .DIA11(di[11]), .DIA10(di[10]), .DIA9(di[9]), .DIA8(di[8]), .DIA7(di[7]), .DIA6(di[6]), .DIA5(di[5]),
          .DIA4(di[4]), .DIA3(di[3]), .DIA2(di[2]), .DIA1(di[1]), .DIA0(di[0]),
          .DIB17(di[35]), .DIB16(di[34]), .DIB15(di[33]), .DIB14(di[32]), .DIB13(di[31]), .DIB12(di[30]),
          .DIB11(di[29]), .DIB10(di[28]), .DIB9(di[27]), .DIB8(di[26]), .DIB7(di[25]), .DIB6(di[24]), .DIB5(di[23]),
          .DIB4(di[22]), .DIB3(di[21]), .DIB2(di[20]), .DIB1(di[19]), .DIB0(di[18]),
          .DOA17(da[17]), .DOA16(da[16]), .DOA15(da[15]), .DOA14(da[14]), .DOA13(da[13]), .DOA12(da[12]),
          .DOA11(da[11]), .DOA10(da[10]), .DOA9(da[9]), .DOA8(da[8]), .DOA7(da[7]), .DOA6(da[6]), .DOA5(da[5]),
          .DOA4(da[4]), .DOA3(da[3]), .DOA2(da[2]), .DOA1(da[1]), .DOA0(da[0]),
          .DOB17(db[17]), .DOB16(db[16]), .DOB15(db[15]), .DOB14(db[14]), .DOB13(db[13]), .DOB12(db[12]),
          .DOB11(db[11]), .DOB10(db[10]), .DOB9(db[9]), .DOB8(db[8]), .DOB7(db[7]), .DOB6(db[6]), .DOB5(db[5]),
          .DOB4(db[4]), .DOB3(db[3]), .DOB2(db[2]), .DOB1(db[1]), .DOB0(db[0])
        );
      end
`endif
    end else begin : g_plain
      (* no_rw_check *) reg [WIDTH-1:0] words [0:DEPTH-1];
      reg [WIDTH-1:0] fetched, out;
      assign read_data = out;
      always @(posedge clk) begin
        if (write) words[write_address] <= write_data;
        if (read) fetched <= words[read_address];
        if (read_output) out <= fetched;
      end
    end
  endgenerate
endmodule
