// SPDX-License-Identifier: MIT
//
// A serial line as the master of an AXI4-Lite bus: one 32-bit read or write a request.
//
// Request, 11 bytes: 0x5A, command (0 read, 1 write), address (4 bytes, least significant first), data (4 bytes, least
// significant first, anything for a read), CRC-8 of the ten bytes between (polynomial 0x07, start 0, no reflection).
// Answer, 7 bytes: 0xA5, status, data (4 bytes; zero unless a read that was done), CRC-8 of the five bytes between.
// Status: 0 done; 2, 3 the bus's own error response; 0x80 the CRC is wrong; 0x81 no such command, or an address that is
// unaligned or beyond AddressBits. Nothing reaches the bus with 0x80 or 0x81.
// Bytes before a 0x5A are dropped. A request that pauses for more than GapBits bit times is forgotten, so that a line
// that lost a byte is in step again after a pause. What arrives before the answer is out is dropped: ask one at a time.
//
// Latency: a request takes the bus one cycle after its last byte; at 115,200 baud a read lasts 1.6 ms.
// Bus: at most one transaction at a time; every valid stays until its ready.

`default_nettype none

module speckv_uart_axil #(
    parameter int unsigned ClocksPerBit = 217,
    parameter int unsigned GapBits = 64,
    parameter int unsigned AddressBits = 17
) (
    input  wire logic                   clk,
    input  wire logic                   rst_n,
    input  wire logic                   rx,
    output      logic                   tx,
    output      logic                   idle, // no request is being received, done or answered

    output      logic                   m_axil_awvalid,
    input  wire logic                   m_axil_awready,
    output      logic [AddressBits-1:0] m_axil_awaddr,
    output      logic [2:0]             m_axil_awprot,
    output      logic                   m_axil_wvalid,
    input  wire logic                   m_axil_wready,
    output      logic [31:0]            m_axil_wdata,
    output      logic [3:0]             m_axil_wstrb,
    input  wire logic                   m_axil_bvalid,
    output      logic                   m_axil_bready,
    input  wire logic [1:0]             m_axil_bresp,
    output      logic                   m_axil_arvalid,
    input  wire logic                   m_axil_arready,
    output      logic [AddressBits-1:0] m_axil_araddr,
    output      logic [2:0]             m_axil_arprot,
    input  wire logic                   m_axil_rvalid,
    output      logic                   m_axil_rready,
    input  wire logic [31:0]            m_axil_rdata,
    input  wire logic [1:0]             m_axil_rresp
);

    if (AddressBits < 3 || AddressBits > 32) begin : g_check
        $fatal(1, "AddressBits must be from 3 to 32");
    end

    localparam logic [7:0] RequestSync = 8'h5A;
    localparam logic [7:0] AnswerSync = 8'hA5;
    localparam logic [7:0] StatusCrc = 8'h80;
    localparam logic [7:0] StatusRequest = 8'h81;
    localparam logic [3:0] RequestBytes = 4'd10; // behind the first one
    localparam logic [2:0] AnswerBytes = 3'd6;   // before the CRC
    localparam int unsigned GapClocks = GapBits * ClocksPerBit;
    localparam int unsigned GapCountBits = $clog2(GapClocks + 1);

    typedef enum logic [2:0] {Idle, Receive, Check, Write, Read, Answer, Sum} state_e;

    function automatic logic [7:0] crc8(input logic [7:0] crc, input logic [7:0] data);
        crc8 = crc ^ data;
        for (int i = 0; i < 8; i++) crc8 = crc8[7] ? {crc8[6:0], 1'b0} ^ 8'h07 : {crc8[6:0], 1'b0};
    endfunction

    logic rx_valid, tx_valid, tx_ready;
    logic [7:0] rx_data, tx_data;

    speckv_uart_rx #(.ClocksPerBit(ClocksPerBit)) u_rx (
        .clk, .rst_n, .rx, .m_axis_tvalid(rx_valid), .m_axis_tdata(rx_data)
    );
    speckv_uart_tx #(.ClocksPerBit(ClocksPerBit)) u_tx (
        .clk, .rst_n, .s_axis_tvalid(tx_valid), .s_axis_tready(tx_ready), .s_axis_tdata(tx_data), .tx
    );

    state_e state_q;
    logic [GapCountBits-1:0] gap_q;
    logic [3:0] left_q; // bytes of the request that are missing, or of the answer that are not sent
    logic [71:0] request_q; // command, address, data: the first byte lowest
    logic [47:0] answer_q;
    logic [7:0] crc_q;
    logic aw_q, w_q, ar_q; // not yet accepted

    logic [7:0] command;
    logic [31:0] address;
    assign command = request_q[7:0];
    assign address = request_q[39:8];

    logic bad_request;
    assign bad_request = command[7:1] != '0 || address[1:0] != '0 || (address >> AddressBits) != '0;

    function automatic logic [47:0] answer(input logic [7:0] status, input logic [31:0] data);
        return {data, status, AnswerSync};
    endfunction

    always_ff @(posedge clk) begin
        unique case (state_q)
            Idle: begin
                left_q <= RequestBytes;
                crc_q <= '0;
                gap_q <= '0;
                if (rx_valid && rx_data == RequestSync) state_q <= Receive;
            end
            Receive: begin
                gap_q <= gap_q + 1'b1;
                if (rx_valid) begin
                    gap_q <= '0;
                    left_q <= left_q - 4'd1;
                    crc_q <= crc8(crc_q, rx_data);
                    if (left_q == 4'd1) state_q <= Check;
                    else request_q <= {rx_data, request_q[71:8]};
                end else if (gap_q == GapCountBits'(GapClocks)) begin
                    state_q <= Idle;
                end
            end
            Check: begin
                left_q <= 4'(AnswerBytes);
                state_q <= Answer;
                crc_q <= '0;
                if (crc_q != '0) begin
                    answer_q <= answer(StatusCrc, '0);
                end else if (bad_request) begin
                    answer_q <= answer(StatusRequest, '0);
                end else if (command[0]) begin
                    {aw_q, w_q} <= '1;
                    state_q <= Write;
                end else begin
                    ar_q <= 1'b1;
                    state_q <= Read;
                end
            end
            Write: begin
                if (m_axil_awready) aw_q <= 1'b0;
                if (m_axil_wready) w_q <= 1'b0;
                if (m_axil_bvalid) begin
                    answer_q <= answer({6'd0, m_axil_bresp}, '0);
                    state_q <= Answer;
                end
            end
            Read: begin
                if (m_axil_arready) ar_q <= 1'b0;
                if (m_axil_rvalid) begin
                    answer_q <= answer({6'd0, m_axil_rresp}, m_axil_rresp == '0 ? m_axil_rdata : '0);
                    state_q <= Answer;
                end
            end
            Answer: begin
                if (tx_ready) begin
                    if (left_q != 4'(AnswerBytes)) crc_q <= crc8(crc_q, answer_q[7:0]); // not over the first byte
                    answer_q <= answer_q >> 8;
                    left_q <= left_q - 4'd1;
                    if (left_q == 4'd1) state_q <= Sum;
                end
            end
            Sum: if (tx_ready) state_q <= Idle;
            default: state_q <= Idle;
        endcase
        if (!rst_n) begin
            state_q <= Idle;
            gap_q <= '0;
            left_q <= '0;
            request_q <= '0;
            answer_q <= '0;
            crc_q <= '0;
            {aw_q, w_q, ar_q} <= '0;
        end
    end

    assign tx_valid = state_q == Answer || state_q == Sum;
    assign tx_data = state_q == Sum ? crc_q : answer_q[7:0];
    assign idle = state_q == Idle && tx_ready;

    assign m_axil_awvalid = aw_q;
    assign m_axil_awaddr = address[AddressBits-1:0];
    assign m_axil_awprot = '0;
    assign m_axil_wvalid = w_q;
    assign m_axil_wdata = request_q[71:40];
    assign m_axil_wstrb = '1;
    assign m_axil_bready = state_q == Write;
    assign m_axil_arvalid = ar_q;
    assign m_axil_araddr = address[AddressBits-1:0];
    assign m_axil_arprot = '0;
    assign m_axil_rready = state_q == Read;

endmodule

`default_nettype wire
