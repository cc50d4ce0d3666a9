// A design of one's own that holds two throttle units of different configurations; the second has another reset.
`timescale 1ns/1ps
`default_nettype none
`include "first.vh"
`include "second.vh"
module two (
  input wire clk,
  input wire reset,

  input wire [63:0] first_gradient_data,
  input wire first_gradient_valid,
  output wire first_gradient_ready,
  input wire [63:0] first_weights_data,
  input wire first_weights_valid,
  output wire first_weights_ready,
  output wire [127:0] first_updated_data,
  output wire first_updated_valid,

  input wire [23:0] second_gradient_data,
  input wire second_gradient_valid,
  output wire second_gradient_ready,
  input wire [23:0] second_weights_data,
  input wire second_weights_valid,
  output wire second_weights_ready,
  output wire [51:0] second_updated_data,
  output wire second_updated_valid
);
  first first_unit (
    .clk(clk), .rst(reset), .clear(1'b0),
    `FIRST_CONSTANTS,
    .s_axis_gradient_tdata(first_gradient_data), .s_axis_gradient_tvalid(first_gradient_valid),
    .s_axis_gradient_tready(first_gradient_ready),
    .s_axis_weights_tdata(first_weights_data), .s_axis_weights_tvalid(first_weights_valid),
    .s_axis_weights_tready(first_weights_ready),
    .m_axis_updated_tdata(first_updated_data), .m_axis_updated_tvalid(first_updated_valid), .m_axis_updated_tready(1'b1),
    .m_axis_registers_tdata(), .m_axis_registers_tvalid(), .m_axis_registers_tready(1'b1)
  );
  second second_unit (
    .clk(clk), .rst_n(!reset), .clear(1'b0),
    `SECOND_CONSTANTS,
    .s_axis_gradient_tdata(second_gradient_data), .s_axis_gradient_tvalid(second_gradient_valid),
    .s_axis_gradient_tready(second_gradient_ready),
    .s_axis_weights_tdata(second_weights_data), .s_axis_weights_tvalid(second_weights_valid),
    .s_axis_weights_tready(second_weights_ready),
    .m_axis_updated_tdata(second_updated_data), .m_axis_updated_tvalid(second_updated_valid), .m_axis_updated_tready(1'b1),
    .m_axis_registers_tdata(), .m_axis_registers_tvalid(), .m_axis_registers_tready(1'b1)
  );
endmodule
`default_nettype wire
