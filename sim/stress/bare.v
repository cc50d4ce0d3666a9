// The core as fast as a simulator can run it, for comparison: streams that never wait, random gradients, nothing in or out.
module bare(input clk);
  parameter LANES = 1;
  parameter GRADIENT = 16;   // bits of an element
  parameter WEIGHT = 16;
  parameter UPDATED = 32;    // bits of a beat
  parameter REGISTERS = 1;
  parameter SCALAR = 34;
  parameter [SCALAR-1:0] ETA = 0, NUM = 0, BIAS = 0, GAIN = 0, RHO = 0, KEEP = 0, EPS = 0, ALPHA_MIN = 0, STILL_NORM = 0;
  parameter [1:0] SOURCE = 0, ON_STILL = 0;
  parameter EMA_FIRST = 0, ENABLED = 1;

  reg [31:0] cycle = 0, random = 1, steps = 0;
  wire [31:0] a = random ^ (random << 13);
  wire [31:0] b = a ^ (a >> 17);
  wire [LANES*GRADIENT-1:0] gradient;
  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
      wire [GRADIENT-1:0] drawn = {random, random} >> lane;
      assign gradient[lane*GRADIENT +: GRADIENT] = {{4{drawn[GRADIENT-4]}}, drawn[GRADIENT-5:0]};  // a sixteenth of the range
    end
  endgenerate
  wire [UPDATED-1:0] updated;
  wire [REGISTERS-1:0] registers;
  wire gradient_ready, weights_ready, updated_valid, registers_valid;

  throttle dut (
    .clk(clk), .rst(cycle < 2), .clear(1'b0),
    .s_axis_gradient_tdata(gradient), .s_axis_gradient_tvalid(1'b1), .s_axis_gradient_tready(gradient_ready),
    .s_axis_weights_tdata({LANES*WEIGHT{1'b0}}), .s_axis_weights_tvalid(1'b1), .s_axis_weights_tready(weights_ready),
    .m_axis_updated_tdata(updated), .m_axis_updated_tvalid(updated_valid), .m_axis_updated_tready(1'b1),
    .m_axis_registers_tdata(registers), .m_axis_registers_tvalid(registers_valid), .m_axis_registers_tready(1'b1),
    .constants_eta(ETA), .constants_num(NUM), .constants_bias(BIAS), .constants_gain(GAIN), .constants_rho(RHO),
    .constants_keep(KEEP), .constants_eps(EPS), .constants_alpha_min(ALPHA_MIN), .constants_still_norm(STILL_NORM),
    .control_source(SOURCE), .control_on_still(ON_STILL), .control_ema_first(EMA_FIRST[0]), .control_enabled(ENABLED[0])
  );

  reg [8*4096-1:0] path;
  integer file, found, cycles;
  initial begin
    found = $value$plusargs("stimulus=%s", path);
    file = $fopen(path, "r");
    found = $fscanf(file, "%d", cycles);
    $fclose(file);
  end
  reg folded = 0;            // of all that leaves, so that none of it is optimised away
  always @(posedge clk) begin
    random <= b ^ (b << 5);
    cycle <= cycle + 1;
    if (registers_valid) steps <= steps + 1;
    if (updated_valid) folded <= folded ^ ^updated ^ ^registers;
    if (cycle == cycles) begin
      if ($value$plusargs("response=%s", path)) begin
        file = $fopen(path, "w");
        $fwrite(file, "%0d steps %0d\n%0d cycles\n", steps, folded, cycle);
        $fclose(file);
      end
      $finish;
    end
  end
endmodule
