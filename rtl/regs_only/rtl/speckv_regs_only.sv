// SPDX-License-Identifier: MIT
//
// The configuration "regs-only": the register map of BAR0 on a small FPGA board, behind a serial line, without an engine.
//
// It identifies itself, keeps what is written, raises and clears interrupts (led[0]), counts cycles and resets, so that
// the chain from speckv.rdl to a bitstream that runs is a real one. What needs an engine reads as a card without one:
// CAPS is zero, no queue pair exists, STATUS.ready stays 0. Queue pairs and doorbells are acknowledged and read zero.
//
// Line: speckv_uart_axil has the protocol; Baud, 8 data bits, no parity, one stop bit.
// Reset: rst_button_n (synchronised here), and by itself after configuration, which clears every register of the part.
// CONTROL.reset waits until its answer is out, then resets the register block, counts it, and leaves the counters alone.

`default_nettype none

module speckv_regs_only #(
    parameter int unsigned ClockHz = 25_000_000,
    parameter int unsigned Baud = 115_200,
    parameter logic [63:0] BuildId = '0, // first byte of the digest lowest
    parameter logic [31:0] RtlRevision = 32'h0000_0100 // major[31:16] minor[15:8] patch[7:0]
) (
    input  wire logic       clk,
    input  wire logic       rst_button_n,
    input  wire logic       rx,
    output      logic       tx,
    output      logic [7:0] led
);

    import speckv_regs_pkg::*;

    localparam int unsigned ClocksPerBit = (ClockHz + Baud / 2) / Baud;

    logic [1:0] button_q;
    logic [7:0] power_on_q;
    logic rst_n_q;

    always_ff @(posedge clk) begin
        button_q <= {button_q[0], rst_button_n};
        if (!button_q[1]) power_on_q <= '0;
        else if (power_on_q != '1) power_on_q <= power_on_q + 8'd1;
        rst_n_q <= power_on_q == '1;
    end

    logic idle;
    logic awvalid, awready, wvalid, wready, bvalid, bready, arvalid, arready, rvalid, rready;
    logic [16:0] awaddr, araddr;
    logic [2:0] awprot, arprot;
    logic [31:0] wdata, rdata;
    logic [3:0] wstrb;
    logic [1:0] bresp, rresp;

    speckv_uart_axil #(.ClocksPerBit(ClocksPerBit)) u_uart (
        .clk, .rst_n(rst_n_q), .rx, .tx, .idle,
        .m_axil_awvalid(awvalid), .m_axil_awready(awready), .m_axil_awaddr(awaddr), .m_axil_awprot(awprot),
        .m_axil_wvalid(wvalid), .m_axil_wready(wready), .m_axil_wdata(wdata), .m_axil_wstrb(wstrb),
        .m_axil_bvalid(bvalid), .m_axil_bready(bready), .m_axil_bresp(bresp),
        .m_axil_arvalid(arvalid), .m_axil_arready(arready), .m_axil_araddr(araddr), .m_axil_arprot(arprot),
        .m_axil_rvalid(rvalid), .m_axil_rready(rready), .m_axil_rdata(rdata), .m_axil_rresp(rresp)
    );

    speckv_regs__in_t hwif_in;
    speckv_regs__out_t hwif_out;
    logic block_rst_n_q;

    speckv_regs u_regs (
        .clk, .rst_n(block_rst_n_q),
        .s_axil_awvalid(awvalid), .s_axil_awready(awready), .s_axil_awaddr(awaddr), .s_axil_awprot(awprot),
        .s_axil_wvalid(wvalid), .s_axil_wready(wready), .s_axil_wdata(wdata), .s_axil_wstrb(wstrb),
        .s_axil_bvalid(bvalid), .s_axil_bready(bready), .s_axil_bresp(bresp),
        .s_axil_arvalid(arvalid), .s_axil_arready(arready), .s_axil_araddr(araddr), .s_axil_arprot(arprot),
        .s_axil_rvalid(rvalid), .s_axil_rready(rready), .s_axil_rdata(rdata), .s_axil_rresp(rresp),
        .hwif_in, .hwif_out
    );

    logic reset_wanted_q;
    logic [31:0] resets_q;
    logic [63:0] cycles_q, cycles_seen_q;

    always_ff @(posedge clk) begin
        block_rst_n_q <= 1'b1;
        cycles_q <= cycles_q + 64'd1;
        if (hwif_out.COUNTER_CONTROL.snapshot.value) cycles_seen_q <= cycles_q;
        if (hwif_out.CONTROL.reset.value) reset_wanted_q <= 1'b1;
        if (reset_wanted_q && idle) begin
            reset_wanted_q <= 1'b0;
            block_rst_n_q <= 1'b0;
            resets_q <= resets_q + 32'd1;
        end
        if (!rst_n_q) begin
            reset_wanted_q <= 1'b0;
            block_rst_n_q <= 1'b0;
            resets_q <= '0;
            cycles_q <= '0;
            cycles_seen_q <= '0;
        end
    end

    always_comb begin
        hwif_in = '{default: '0};
        {hwif_in.RTL_REVISION.major.next, hwif_in.RTL_REVISION.minor.next, hwif_in.RTL_REVISION.patch.next} = RtlRevision;
        {hwif_in.BUILD_ID.HI.value.next, hwif_in.BUILD_ID.LO.value.next} = BuildId;
        {hwif_in.COUNT_CYCLES.HI.value.next, hwif_in.COUNT_CYCLES.LO.value.next} = cycles_seen_q;
        hwif_in.RESET_COUNT.count.next = resets_q;
        hwif_in.STATUS.resetting.next = reset_wanted_q;
        // There is nothing to finish and nothing to write back.
        hwif_in.STATUS.shutdown.next = hwif_out.CONTROL.shutdown.value ? speckv_shutdown_state__DONE
                                                                       : speckv_shutdown_state__RUNNING;
        hwif_in.INT_STATUS.admin.next = hwif_out.INT_TEST.admin.value;
        hwif_in.INT_STATUS.event_log.next = hwif_out.INT_TEST.event_log.value;
        hwif_in.INT_STATUS.fault.next = hwif_out.INT_TEST.fault.value;
        hwif_in.INT_STATUS.thermal.next = hwif_out.INT_TEST.thermal.value;
        hwif_in.INT_STATUS.fatal.next = hwif_out.INT_TEST.fatal.value;
        hwif_in.INT_STATUS.flash.next = hwif_out.INT_TEST.flash.value;
        hwif_in.INT_STATUS.queue_pair.next = hwif_out.INT_TEST.queue_pair.value;
        hwif_in.QUEUES.rd_ack = hwif_out.QUEUES.req && !hwif_out.QUEUES.req_is_wr;
        hwif_in.QUEUES.wr_ack = hwif_out.QUEUES.req && hwif_out.QUEUES.req_is_wr;
        hwif_in.DOORBELLS.rd_ack = hwif_out.DOORBELLS.req && !hwif_out.DOORBELLS.req_is_wr;
        hwif_in.DOORBELLS.wr_ack = hwif_out.DOORBELLS.req && hwif_out.DOORBELLS.req_is_wr;
    end

    assign led = {
        cycles_q[23], 4'd0, hwif_out.SCRATCH.LO.value.value[0], hwif_out.CONTROL.enable.value, hwif_out.INT_STATUS.intr
    };

endmodule

`default_nettype wire
