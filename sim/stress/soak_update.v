// Beats of update lanes, a cycle each, without Python: a record of the stimulus file is a cycle, and a line of the response
// file is what came out of one with an output.
module soak (clk);
  parameter STEP = 17;
  parameter IN = 1;          // bits of a beat: {last, weight, direction}
  parameter OUT = 1;

  input clk;

  // {beat, step, valid}, in whole bytes, the highest first.
  localparam BYTES = (IN + STEP + 1 + 7) / 8;
  reg [8*BYTES-1:0] record = 0;

  wire valid;
  wire [OUT-1:0] beat;
  update dut (
    .clk(clk), .rst(1'b0), .i_valid(record[0]), .step(record[1 +: STEP]), .i(record[1 + STEP +: IN]), .o_valid(valid), .o(beat)
  );

  reg [31:0] cycles = 0;
  reg [8*256-1:0] name;
  integer stimulus, response, count;
  initial begin
    count = $value$plusargs("stimulus=%s", name);
    stimulus = $fopen(name, "rb");
    count = $value$plusargs("response=%s", name);
    response = $fopen(name, "w");
  end

  always @(negedge clk) begin
    cycles <= cycles + 1;
    if (valid) $fdisplay(response, "%h", beat);
    count = $fread(record, stimulus);
    if (count != BYTES) begin
      $fdisplay(response, "%0d cycles", cycles);
      $finish;
    end
  end
endmodule
