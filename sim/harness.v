// Drives the exported throttle in bulk: a whole step runs without Python.
//
// Vectors enter and leave through memories, loaded and stored as files in one go; the streams are driven by the machines
// below, with pseudo-random idle cycles and backpressure on demand, and watched for the stream rules. The host sets the
// constants, toggles `go`, and waits for `done` to follow. In Verilator the clock comes from harness.cpp, which runs it at full
// speed while `busy` is up.
`timescale 1ns / 1ns
module harness
`ifdef VERILATOR
(
  input clk /* verilator public_flat_rd */,
  output busy
);
`else
;
  reg clk = 0;
  always #5 clk = ~clk;
  wire busy;
`endif
  parameter BEATS = 1;
  parameter GRADIENT = 16;   // bits of a beat of each vector
  parameter DIRECTION = GRADIENT;
  parameter WEIGHT = 16;
  parameter UPDATED = 32;    // {update, weight}, above them the residuals if they pass through here
  parameter UPDATE = 16;
  parameter REGISTERS = 1;
  parameter SCALAR = 34;

  // Words in memory are whole bytes.
  localparam GRADIENT_WORD = (GRADIENT + 7) / 8 * 8;
  localparam DIRECTION_WORD = (DIRECTION + 7) / 8 * 8;
  localparam WEIGHT_WORD = (WEIGHT + 7) / 8 * 8;
  localparam UPDATE_WORD = (UPDATE + 7) / 8 * 8;

  // Written by the host.
  reg go /* verilator public_flat_rw */ = 0;
  reg load /* verilator public_flat_rw */ = 0;             // read the weights before the step
  reg wave /* verilator public_flat_rw */ = 0;
  reg watched /* verilator public_flat_rw */ = 0;          // the host has something to do in the midst of a step
  reg reset /* verilator public_flat_rw */ = 1;
  reg clear /* verilator public_flat_rw */ = 0;
  reg [7:0] idle /* verilator public_flat_rw */ = 0;       // chance of an idle cycle, of 256
  reg [7:0] stall /* verilator public_flat_rw */ = 0;      // chance of a cycle without ready, of 256
  reg [31:0] seed /* verilator public_flat_rw */ = 1;
  reg [31:0] limit /* verilator public_flat_rw */ = 0;     // cycles after which a step counts as hung
  reg [SCALAR-1:0] constants_eta /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_num /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_bias /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_gain /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_rho /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_keep /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_eps /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_alpha_min /* verilator public_flat_rw */ = 0;
  reg [SCALAR-1:0] constants_still_norm /* verilator public_flat_rw */ = 0;
  reg [1:0] control_source /* verilator public_flat_rw */ = 0;
  reg [1:0] control_on_still /* verilator public_flat_rw */ = 0;
  reg control_ema_first /* verilator public_flat_rw */ = 0;
  reg control_enabled /* verilator public_flat_rw */ = 0;
  reg [3:0] watchdog_mask /* verilator public_flat_rw */ = 0;
  reg [31:0] blocks /* verilator public_flat_rw */ = 0;    // energies of blocks that come before the step
  reg [31:0] beats /* verilator public_flat_rw */ = BEATS; // of a pass; a layout of segments may take fewer than there is room for
  reg [31:0] entries /* verilator public_flat_rw */ = 0;   // of the table of segments that come before the step

`ifdef SHARD                 // bits of the integers that are exchanged with other shards, through the host
  reg [`SHARD-1:0] total /* verilator public_flat_rw */ = 0;
  reg answers /* verilator public_flat_rw */ = 0;            // toggled by the host where `total` is the sum of what was asked for
  reg asks /* verilator public_flat_rd */ = 0;               // `partial` is there, and the host has not answered
  reg [`SHARD-1:0] partial /* verilator public_flat_rd */ = 0;
`else
  wire asks = 0;
`endif

  // Read by the host.
  reg done /* verilator public_flat_rd */ = 0;
  reg hung /* verilator public_flat_rd */ = 0;
  reg [31:0] cycles /* verilator public_flat_rd */ = 0;     // from the first gradient beat offered to the registers taken
  reg [31:0] violations /* verilator public_flat_rd */ = 0; // of the stream rules in this step, and undefined bits in a valid payload
  reg [REGISTERS-1:0] registers /* verilator public_flat_rd */ = 0;

  assign busy = go != done && !watched && !asks;

  // What the host may write at any time is a root of all logic behind it, which would be computed again at every edge. So the
  // unit sees it a cycle later, from registers; a step begins two cycles after the host's word.
  reg unit_reset = 1, unit_clear = 0;
  reg [9*SCALAR-1:0] constants = 0;
  reg [5:0] control = 0;
  always @(posedge clk) begin
    unit_reset <= reset;
    unit_clear <= clear;
    constants <= {
      constants_still_norm, constants_alpha_min, constants_eps, constants_keep, constants_rho, constants_gain,
      constants_bias, constants_num, constants_eta
    };
    control <= {control_enabled, control_ema_first, control_on_still, control_source};
  end

  reg [GRADIENT_WORD-1:0] gradient_memory [0:BEATS-1];
  reg [GRADIENT_WORD-1:0] previous_memory [0:BEATS-1];
  reg [DIRECTION_WORD-1:0] direction_memory [0:BEATS-1];
  reg [WEIGHT_WORD-1:0] weight_memory [0:BEATS-1] /* verilator public_flat_rd */;
  reg [UPDATE_WORD-1:0] update_memory [0:BEATS-1] /* verilator public_flat_rd */;

  reg running /* verilator public_flat_rd */ = 0;
  reg gradient_valid = 0, weight_valid = 0;
  reg updated_ready = 0, registers_ready = 0;
  wire gradient_ready, weight_ready, updated_valid, registers_valid;
  wire [UPDATED-1:0] updated_payload;
  wire [REGISTERS-1:0] registers_payload;
  reg [31:0] gradient_beat = 0, weight_beat = 0, updated_beat = 0;
`ifdef HELD                  // the last word stays where a stream ends; without this, what is there then is undefined
  wire [31:0] gradient_at = gradient_beat < beats ? gradient_beat : beats - 1;
  wire [31:0] weight_at = weight_beat < beats ? weight_beat : beats - 1;
`else
  wire [31:0] gradient_at = gradient_beat;
  wire [31:0] weight_at = weight_beat;
`endif
  wire [GRADIENT_WORD-1:0] gradient_word = gradient_memory[gradient_at];
  wire [GRADIENT_WORD-1:0] previous_word = previous_memory[gradient_at];
  wire [DIRECTION_WORD-1:0] direction_word = direction_memory[weight_at];
  wire [WEIGHT_WORD-1:0] weight_word = weight_memory[weight_at];

`ifdef RESIDUAL              // bits of a beat of residuals
  reg [`RESIDUAL-1:0] residual_memory [0:BEATS-1];
`endif
`ifdef HELD                  // and nothing is undefined before it is written
  integer at;
  initial
    for (at = 0; at < BEATS; at = at + 1) begin
      gradient_memory[at] = 0;
      previous_memory[at] = 0;
      direction_memory[at] = 0;
      weight_memory[at] = 0;
`ifdef RESIDUAL
      residual_memory[at] = 0;
`endif
    end
`endif
`ifdef BLOCKS
  reg [47:0] block_memory [0:`BLOCKS-1];
  reg [47:0] block = 0;
  reg block_valid = 0;
  wire block_ready;
  wire block_waits = block_valid && !block_ready;
`else
  wire block_waits = 0;
`endif

`ifdef ENTRIES                // entries of the table, of ENTRY bits
  reg [(`ENTRY+7)/8*8-1:0] entry_memory [0:`ENTRIES-1];
  reg [(`ENTRY+7)/8*8-1:0] entry = 0;
  reg entry_valid = 0;
  wire entry_ready;
  wire entry_waits = entry_valid && !entry_ready;
`else
  wire entry_waits = 0;
`endif

`ifdef SHARD
  reg answered = 0, total_valid = 0, partial_ready = 0;
  wire partial_valid, total_ready;
  wire [`SHARD-1:0] partial_payload;
`endif

  throttle dut (
    .clk(clk), .rst(unit_reset), .clear(unit_clear),
`ifdef ENTRIES
    .s_axis_layout_tdata(entry[`ENTRY-1:0]), .s_axis_layout_tvalid(entry_valid), .s_axis_layout_tready(entry_ready),
`endif
`ifdef SHARD
    .m_axis_partial_tdata(partial_payload), .m_axis_partial_tvalid(partial_valid), .m_axis_partial_tready(partial_ready),
    .s_axis_total_tdata(total), .s_axis_total_tvalid(total_valid), .s_axis_total_tready(total_ready),
`endif
`ifdef WATCHDOG
    .watchdog_mask(watchdog_mask),
`endif
`ifdef BLOCKS
    .s_axis_blocks_tdata(block), .s_axis_blocks_tvalid(block_valid), .s_axis_blocks_tready(block_ready),
`endif
`ifdef STREAMING             // the unit has no gradient memory: the harness plays it
    .s_axis_absorb_tdata({previous_word[GRADIENT-1:0], gradient_word[GRADIENT-1:0]}),
    .s_axis_absorb_tvalid(gradient_valid), .s_axis_absorb_tready(gradient_ready),
    .s_axis_apply_tdata({
`ifdef RESIDUAL
      residual_memory[weight_at],
`endif
      direction_word[DIRECTION-1:0], weight_word[WEIGHT-1:0]}),
    .s_axis_apply_tvalid(weight_valid), .s_axis_apply_tready(weight_ready),
`else
    .s_axis_gradient_tdata(gradient_word[GRADIENT-1:0]), .s_axis_gradient_tvalid(gradient_valid), .s_axis_gradient_tready(gradient_ready),
    .s_axis_weights_tdata(weight_word[WEIGHT-1:0]), .s_axis_weights_tvalid(weight_valid), .s_axis_weights_tready(weight_ready),
`endif
    .m_axis_updated_tdata(updated_payload), .m_axis_updated_tvalid(updated_valid), .m_axis_updated_tready(updated_ready),
    .m_axis_registers_tdata(registers_payload), .m_axis_registers_tvalid(registers_valid), .m_axis_registers_tready(registers_ready),
    .constants_eta(constants[0*SCALAR +: SCALAR]),
    .constants_num(constants[1*SCALAR +: SCALAR]),
    .constants_bias(constants[2*SCALAR +: SCALAR]),
    .constants_gain(constants[3*SCALAR +: SCALAR]),
    .constants_rho(constants[4*SCALAR +: SCALAR]),
    .constants_keep(constants[5*SCALAR +: SCALAR]),
    .constants_eps(constants[6*SCALAR +: SCALAR]),
    .constants_alpha_min(constants[7*SCALAR +: SCALAR]),
    .constants_still_norm(constants[8*SCALAR +: SCALAR]),
    .control_source(control[1:0]), .control_on_still(control[3:2]),
    .control_ema_first(control[4]), .control_enabled(control[5])
  );

  // One xorshift word a cycle; each decision takes its own byte.
  reg [31:0] random = 1;
  function [31:0] next(input [31:0] x);
    reg [31:0] a, b;
    begin
      a = x ^ (x << 13);
      b = a ^ (a >> 17);
      next = b ^ (b << 5);
    end
  endfunction

  localparam REST = 0, GREET = 1, START = 2, RUN = 3;
  reg [1:0] phase = REST;
  reg [31:0] number = 0, written = 0, waited = 0;

  always @(posedge clk) begin
    random <= next(random);

    // A step, from the host's word to its answer.
    case (phase)
      REST:
        if (go != done) begin
          fetch;
          number <= 0;
          written <= 0;
          waited <= 0;
          phase <= GREET;
        end
      GREET: begin             // a table of segments, and the energies of blocks, come before the step
        phase <= START;
`ifdef ENTRIES
        if (!entry_waits) begin
          entry <= entry_memory[written];
          entry_valid <= written < entries;
          if (written < entries) written <= written + 1;
        end
        if (entry_waits || written < entries) phase <= GREET;
`endif
`ifdef BLOCKS
        if (!block_waits) begin
          block <= block_memory[number];
          block_valid <= number < blocks;
          if (number < blocks) number <= number + 1;
        end
        if (block_waits || number < blocks) phase <= GREET;
`endif
        if (entry_waits || block_waits) begin
          waited <= waited + 1;
          if (waited == limit) begin   // nobody takes them: that is a hung unit, whatever comes after
            hung <= 1;
`ifdef ENTRIES
            entry_valid <= 0;
`endif
`ifdef BLOCKS
            block_valid <= 0;
`endif
            done <= go;
            phase <= REST;
          end
        end
      end
      START: begin
        random <= seed | 1;
        gradient_beat <= 0;
        weight_beat <= 0;
        updated_beat <= 0;
        cycles <= 0;
        violations <= 0;
        running <= 1;
        phase <= RUN;
      end
      RUN:
        if (!running) begin
          store;
          done <= go;
          phase <= REST;
        end
    endcase

    if (running) begin
      cycles <= cycles + 1;

      // Producers: valid falls only after a transfer.
      if (gradient_valid && gradient_ready) begin
        gradient_beat <= gradient_beat + 1;
`ifdef STREAMING
        previous_memory[gradient_beat] <= gradient_word;
`endif
      end
      if (!gradient_valid || gradient_ready)
        gradient_valid <= (gradient_beat + (gradient_valid ? 1 : 0)) < beats && random[7:0] >= idle;
      if (weight_valid && weight_ready) weight_beat <= weight_beat + 1;
      if (!weight_valid || weight_ready)
        weight_valid <= (weight_beat + (weight_valid ? 1 : 0)) < beats && random[15:8] >= idle;

      // Consumers: ready comes and goes.
      updated_ready <= random[23:16] >= stall;
      registers_ready <= random[31:24] >= stall;
      if (updated_valid && updated_ready) begin
        weight_memory[updated_beat] <= updated_payload[WEIGHT-1:0];
        update_memory[updated_beat] <= updated_payload[WEIGHT+UPDATE-1:WEIGHT];
`ifdef RESIDUAL
        residual_memory[updated_beat] <= updated_payload[UPDATED-1:WEIGHT+UPDATE];
`endif
        updated_beat <= updated_beat + 1;
      end

`ifdef SHARD                 // what the shard offers goes to the host, and the sum over all shards comes from there
      partial_ready <= random[31:24] >= stall && !asks && !(partial_valid && partial_ready);
      if (partial_valid && partial_ready) begin
        partial <= partial_payload;
        asks <= 1;
      end
      if (answers != answered) begin
        answered <= answers;
        asks <= 0;
        total_valid <= 1;
      end
      if (total_valid && total_ready) total_valid <= 0;
`endif

      if ((registers_valid && registers_ready) || cycles == limit) begin
        registers <= registers_payload;
        hung <= (registers_valid && registers_ready) !== 1'b1;  // undefined is not done
        running <= 0;
        gradient_valid <= 0;
        weight_valid <= 0;
        updated_ready <= 0;
        registers_ready <= 0;
`ifdef SHARD
        partial_ready <= 0;
        total_valid <= 0;
        asks <= 0;
`endif
        if (updated_beat != beats || gradient_beat != beats || weight_beat != beats) violations <= violations + 1;
      end
    end
  end

  // Rule 2: what is offered stays, unchanged, until it is taken.
  reg updated_kept = 0, registers_kept = 0;
  reg [UPDATED-1:0] updated_before;
  reg [REGISTERS-1:0] registers_before;
`ifdef SHARD
  reg partial_kept = 0;
  reg [`SHARD-1:0] partial_before;
`endif
  always @(posedge clk) begin
    updated_kept <= updated_valid && !updated_ready && !unit_reset;
    updated_before <= updated_payload;
    registers_kept <= registers_valid && !registers_ready && !unit_reset;
    registers_before <= registers_payload;
`ifdef SHARD
    partial_kept <= partial_valid && !partial_ready && !unit_reset;
    partial_before <= partial_payload;
`endif
    if (!unit_reset && running) begin
      if (updated_kept && (!updated_valid || updated_payload !== updated_before)) violations <= violations + 1;
      if (registers_kept && (!registers_valid || registers_payload !== registers_before)) violations <= violations + 1;
      if (updated_valid && ^updated_payload === 1'bx) violations <= violations + 1;
      if (registers_valid && ^registers_payload === 1'bx) violations <= violations + 1;
`ifdef SHARD
      if (partial_kept && (!partial_valid || partial_payload !== partial_before)) violations <= violations + 1;
      if (partial_valid && ^partial_payload === 1'bx) violations <= violations + 1;
`endif
    end
  end

  // The vectors of a step. $fread takes the bytes of a word from the highest down. Text shows what is undefined, where a
  // simulator knows that.
  integer file, count;
  task fetch;
    begin
      if (load) begin
        file = $fopen("weights.bin", "rb");
        count = $fread(weight_memory, file);
        $fclose(file);
`ifdef HELD
`ifdef RESIDUAL
        file = $fopen("residual.bin", "rb");
        count = $fread(residual_memory, file);
        $fclose(file);
`endif
`endif
      end
      file = $fopen("gradient.bin", "rb");
      count = $fread(gradient_memory, file);
      $fclose(file);
`ifdef STREAMING
      file = $fopen("direction.bin", "rb");
      count = $fread(direction_memory, file);
      $fclose(file);
`endif
`ifdef ENTRIES
      if (entries != 0) begin
        file = $fopen("layout.bin", "rb");
        count = $fread(entry_memory, file);
        $fclose(file);
      end
`endif
`ifdef BLOCKS
      if (blocks != 0) begin
        file = $fopen("blocks.bin", "rb");
        count = $fread(block_memory, file);
        $fclose(file);
      end
`endif
    end
  endtask

  task store;
    begin
`ifndef VERILATOR          // whose model hands its memories over, in harness.cpp
      $writememh("weights.out.hex", weight_memory);
      $writememh("update.out.hex", update_memory);
`endif
    end
  endtask

`ifdef WAVES                 // every field of the words by its name: a module made for the configuration
  fields fields (
    .gradient_word(gradient_word[GRADIENT-1:0]), .weight_word(weight_word[WEIGHT-1:0]),
    .direction_word(direction_word[DIRECTION-1:0]), .updated_word(updated_payload[WEIGHT+UPDATE-1:0]),
    .registers_word(registers)
  );
`endif

  reg dumping = 0;
  always @(posedge clk)
    if (wave && !dumping) begin
      dumping <= 1;
      $dumpfile("wave.vcd");
      $dumpvars(0, harness);
    end
endmodule
