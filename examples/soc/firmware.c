// Trains a linear classifier of digits in integers; each step of its weights is the unit's.
//
// 10 rows of 64 pixels and a constant; squared error on the whole batch. A pixel of 0..16 counts sixteenths, a weight 2**-14, a
// score 2**-18 and, rounded, an error 2**-14. The sum over the batch is divided by its size as it is rounded onto the gradient's
// grid, 2**-12. All of it is exact in 32 bits, so the host repeats it in numpy (compare.py).
#include <generated/csr.h>
#include <generated/mem.h>
#include <irq.h>
#include <system.h>

#include "digits.h"
#include "throttle_axi.h"

#define CLASSES 10
#define COLUMNS (PIXELS + 1)
#define FIELDS THROTTLE_AXI_GRADIENT_LENGTH // N, and what the last beat has beyond it

_Static_assert(THROTTLE_AXI_ELEMENTS_RESET == CLASSES * COLUMNS, "the unit must have a weight for each class and column");
_Static_assert(THROTTLE_AXI_FORMAT_GRADIENT_FRACTION_BITS_RESET == 12, "the gradient below is on a grid of 2**-12");
_Static_assert(THROTTLE_AXI_FORMAT_WEIGHT_FRACTION_BITS_RESET == 14, "the weights below are on a grid of 2**-14");

static int16_t weights[FIELDS] __attribute__((aligned(4)));
static int16_t gradient[FIELDS] __attribute__((aligned(4)));
static volatile int ended;

static volatile uint32_t *reg(uint32_t offset) {
    return (volatile uint32_t *)(THROTTLE_BASE + offset);
}

// ------------------------------------------------------------------------------------------------------------- what it says

static void put(char c) {
    while (uart_txfull_read())
        ;
    uart_rxtx_write(c);
}

static void text(const char *s) {
    while (*s)
        put(*s++);
}

static void hex(uint32_t value, int digits) {
    while (digits--)
        put("0123456789abcdef"[(value >> (4 * digits)) & 15]);
}

static void line(const char *name, uint32_t value) {
    text(name);
    put(' ');
    hex(value, 8);
    put('\n');
}

__attribute__((noreturn)) static void end(void) {
    put(4); // the simulation's end
    for (;;)
        ;
}

// A register of the last step: its name, and its words from the highest.
static void show(const char *name, uint32_t offset, int words) {
    text(name);
    put(' ');
    while (words--)
        hex(*reg(offset + 4 * words), 8);
    put('\n');
}
#define SHOW(name) show(#name, THROTTLE_AXI_##name##_OFFSET, THROTTLE_AXI_##name##_WORDS)
#define SHOW_SCALAR(name) SHOW(name##_M), SHOW(name##_E)

// --------------------------------------------------------------------------------------------------------- the classifier

static int32_t score(int class, const uint8_t *image) {
    const int16_t *row = weights + COLUMNS * class;
    int32_t sum = 16 * row[PIXELS];
    for (int i = 0; i < PIXELS; i++)
        sum += row[i] * image[i];
    return sum;
}

static int right_answers(const uint8_t images[][PIXELS], const uint8_t *labels, int count) {
    int right = 0;
    for (int n = 0; n < count; n++) {
        int best = 0;
        int32_t highest = score(0, images[n]);
        for (int c = 1; c < CLASSES; c++) {
            int32_t found = score(c, images[n]);
            if (found > highest)
                highest = found, best = c;
        }
        right += best == labels[n];
    }
    return right;
}

static void show_accuracy(void) {
    line("right_trained", right_answers(TRAINED, TRAINED_LABELS, IMAGES));
    line("right_unseen", right_answers(UNSEEN, UNSEEN_LABELS, IMAGES));
}

static void find_gradient(void) {
    for (int c = 0; c < CLASSES; c++) {
        int32_t sums[COLUMNS];
        for (int i = 0; i < COLUMNS; i++)
            sums[i] = 0;
        for (int n = 0; n < IMAGES; n++) {
            int32_t error = ((score(c, TRAINED[n]) + 8) >> 4) - (c == TRAINED_LABELS[n] ? 1 << 14 : 0);
            for (int i = 0; i < PIXELS; i++)
                sums[i] += error * TRAINED[n][i];
            sums[PIXELS] += 16 * error;
        }
        for (int i = 0; i < COLUMNS; i++) {
            int32_t rounded = (sums[i] + (IMAGES << 5)) >> (6 + LOG2_IMAGES);
            gradient[COLUMNS * c + i] = rounded > 32767 ? 32767 : rounded < -32768 ? -32768 : rounded;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- the step

void isr(void) {
    *reg(THROTTLE_AXI_IRQ_STATUS_OFFSET) = THROTTLE_AXI_IRQ_STATUS_DONE_MASK;
    ended = 1;
}

static uint32_t cycles(void) {
    timer0_uptime_latch_write(1);
    return timer0_uptime_cycles_read();
}

// The DMA writer comes first: one that is not armed takes what arrives and drops it. Disabled in between, all three begin anew.
static void step(void) {
    ended = 0;
    updated_dma_enable_write(0);
    weights_dma_enable_write(0);
    gradient_dma_enable_write(0);
    updated_dma_enable_write(1);
    weights_dma_enable_write(1);
    gradient_dma_enable_write(1);
    while (!ended || !updated_dma_done_read())
        ;
    flush_cpu_dcache(); // the DMA wrote past it
}

static void prepare(void) {
    // What no register answers reads as anything here: LiteX gives the bus error, and VexRiscv leaves it unconnected.
    SHOW(ID);
    SHOW(VERSION);
    SHOW(ELEMENTS);
    SHOW(SIZE);
    SHOW(FORMAT_GRADIENT);
    SHOW(FORMAT_WEIGHT);
    SHOW(FORMAT_UPDATE);
    SHOW(FORMAT_STEP);
    SHOW(DIGEST);
    *reg(THROTTLE_AXI_IRQ_ENABLE_OFFSET) = THROTTLE_AXI_IRQ_ENABLE_DONE_MASK;
    if (throttle_axi_check(reg(0)) != -1 || *reg(THROTTLE_AXI_IRQ_ENABLE_OFFSET) != THROTTLE_AXI_IRQ_ENABLE_DONE_MASK) {
        text("error: the unit of the header does not answer\n");
        end();
    }
    gradient_dma_base_write((uint32_t)gradient);
    gradient_dma_length_write(sizeof gradient);
    weights_dma_base_write((uint32_t)weights);
    weights_dma_length_write(sizeof weights);
    updated_dma_base_write((uint32_t)weights); // in place: a weight is written after it was read
    updated_dma_length_write(sizeof weights);

    throttle_ev_enable_write(1);
    irq_setmask(1 << THROTTLE_INTERRUPT);
    irq_setie(1);
    *reg(THROTTLE_AXI_CONTROL_OFFSET) |= THROTTLE_AXI_CONTROL_RUN_MASK;
}

int main(void) {
    prepare();
    show_accuracy();
    for (int n = 0; n < STEPS; n++) {
        find_gradient();
        uint32_t begun = cycles();
        step();
        uint32_t took = cycles() - begun;
        line("cycles", took);
        SHOW(STATUS);
        SHOW(STEPS);
        SHOW(A);
        SHOW(B);
        SHOW_SCALAR(NORM_GRADIENT);
        SHOW_SCALAR(NORM_MOTION);
        SHOW_SCALAR(CURVATURE);
        SHOW_SCALAR(EMA);
        SHOW_SCALAR(ALPHA);
        SHOW(STEP_SIZE);
        SHOW(GRADIENT_SATURATED);
        SHOW(GRADIENT_NEAR_RAIL);
        SHOW(UPDATE_SATURATED);
        SHOW(UPDATE_UNDERFLOW);
        SHOW(WEIGHT_SATURATED);
        SHOW(WEIGHT_NEAR_RAIL);
        SHOW(STILL_STEPS);
        SHOW(IRQ_STATUS);
        text("weights ");
        for (uint32_t i = 0; i < THROTTLE_AXI_ELEMENTS_RESET; i++)
            hex(weights[i], 4);
        put('\n');
    }
    show_accuracy();
    end();
}
