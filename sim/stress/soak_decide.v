// Steps of the exported scalar part, without Python and without pause: a record of the stimulus file is a step, and a line of the
// response file is its answer, the step size above the status.
module soak (clk);
  parameter ENERGY = 38;
  parameter STEP = 17;
  parameter STATUS = 300;
  parameter SCALAR = 34;
  parameter LIMIT = 5000;    // cycles after which a step counts as hung

  input clk;

  // {control, constants, B, A, clear, restart}, in whole bytes, the highest first.
  localparam BITS = 6 + 9 * SCALAR + 2 * ENERGY + 2;
  localparam BYTES = (BITS + 7) / 8;
  reg [8*BYTES-1:0] record;
  wire restarts = record[0];
  wire clears = record[1];
  wire [ENERGY-1:0] gradient = record[2 +: ENERGY];
  wire [ENERGY-1:0] motion = record[2 + ENERGY +: ENERGY];
  wire [9*SCALAR-1:0] constants = record[2 + 2 * ENERGY +: 9 * SCALAR];
  wire [5:0] control = record[2 + 2 * ENERGY + 9 * SCALAR +: 6];

  reg reset = 1, clear = 0, valid = 0, ready = 0;
  reg [ENERGY-1:0] energy = 0;
  wire i_ready, o_valid;
  wire [STEP-1:0] step;
  wire [STATUS-1:0] status;
  decide dut (
    .clk(clk), .rst(reset), .clear(clear), .s_axis_i_tdata(energy), .s_axis_i_tvalid(valid), .s_axis_i_tready(i_ready),
    .m_axis_o_tdata(step), .m_axis_o_tvalid(o_valid), .m_axis_o_tready(ready), .status(status),
    .constants_eta(constants[0*SCALAR +: SCALAR]), .constants_num(constants[1*SCALAR +: SCALAR]),
    .constants_bias(constants[2*SCALAR +: SCALAR]), .constants_gain(constants[3*SCALAR +: SCALAR]),
    .constants_rho(constants[4*SCALAR +: SCALAR]), .constants_keep(constants[5*SCALAR +: SCALAR]),
    .constants_eps(constants[6*SCALAR +: SCALAR]), .constants_alpha_min(constants[7*SCALAR +: SCALAR]),
    .constants_still_norm(constants[8*SCALAR +: SCALAR]),
    .control_source(control[1:0]), .control_on_still(control[3:2]), .control_ema_first(control[4]),
    .control_enabled(control[5])
  );

  localparam FETCH = 0, PULSE = 1, GRADIENT = 2, ANSWER = 3, MOTION = 4;
  reg [2:0] state = FETCH;
  reg [31:0] cycles = 0, waited = 0;
  reg [8*256-1:0] name;
  integer stimulus, response, count;
  initial begin
    count = $value$plusargs("stimulus=%s", name);
    stimulus = $fopen(name, "rb");
    count = $value$plusargs("response=%s", name);
    response = $fopen(name, "w");
  end

  always @(posedge clk) begin
    cycles <= cycles + 1;
    waited <= waited + 1;
    case (state)
      FETCH: begin
        count = $fread(record, stimulus);
        waited <= 0;
        reset <= restarts;
        clear <= clears;
        state <= PULSE;
        if (count != BYTES) begin
          $fdisplay(response, "%0d cycles", cycles);
          $finish;
        end
      end
      PULSE: begin
        reset <= 0;
        clear <= 0;
        energy <= gradient;
        valid <= 1;
        state <= GRADIENT;
      end
      GRADIENT: if (i_ready) begin
        valid <= 0;
        ready <= 1;
        state <= ANSWER;
      end
      ANSWER: if (o_valid) begin
        $fdisplay(response, "%h%h", step, status);
        ready <= 0;
        energy <= motion;
        valid <= 1;
        state <= MOTION;
      end
      MOTION: if (i_ready) begin
        valid <= 0;
        state <= FETCH;
      end
    endcase
    if (waited > LIMIT) begin
      $fdisplay(response, "hung");
      $finish;
    end
  end
endmodule
