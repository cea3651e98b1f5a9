// SPDX-License-Identifier: MIT
//
// UART receiver: 8 data bits, no parity, one stop bit, least significant bit first.
//
// Latency: a byte leaves half a bit after the middle of its last data bit, that is in the middle of its stop bit.
// Output: m_axis_tvalid for one cycle with m_axis_tdata; there is no ready, so the taker must always take. A byte
// whose stop bit is not 1 is dropped.

`default_nettype none

module speckv_uart_rx #(
    parameter int unsigned ClocksPerBit = 217
) (
    input  wire logic       clk,
    input  wire logic       rst_n,
    input  wire logic       rx, // asynchronous
    output      logic       m_axis_tvalid,
    output      logic [7:0] m_axis_tdata
);

    if (ClocksPerBit < 4) begin : g_check
        $fatal(1, "ClocksPerBit must be at least 4");
    end

    localparam int unsigned CountBits = $clog2(ClocksPerBit);
    localparam logic [CountBits-1:0] Full = CountBits'(ClocksPerBit - 1);
    localparam logic [CountBits-1:0] Half = CountBits'(ClocksPerBit / 2 - 1);

    logic [1:0] sync_q;
    logic [CountBits-1:0] count_q;
    logic [3:0] bit_q; // 0: waits for a start bit; 1: in it; 2 to 9: data; 10: stop
    logic [7:0] data_q;
    logic valid_q;

    always_ff @(posedge clk) begin
        sync_q <= {sync_q[0], rx};
        valid_q <= 1'b0;
        if (bit_q == 4'd0) begin
            count_q <= Half;
            if (!sync_q[1]) bit_q <= 4'd1;
        end else if (count_q != '0) begin
            count_q <= count_q - 1'b1;
        end else begin
            count_q <= Full;
            bit_q <= bit_q + 4'd1;
            if (bit_q == 4'd1) begin
                if (sync_q[1]) bit_q <= 4'd0; // a glitch, no start bit
            end else if (bit_q == 4'd10) begin
                valid_q <= sync_q[1];
                bit_q <= 4'd0;
            end else begin
                data_q <= {sync_q[1], data_q[7:1]};
            end
        end
        if (!rst_n) begin
            sync_q <= '1;
            count_q <= '0;
            bit_q <= '0;
            data_q <= '0;
            valid_q <= 1'b0;
        end
    end

    assign m_axis_tvalid = valid_q;
    assign m_axis_tdata = data_q;

endmodule

`default_nettype wire
