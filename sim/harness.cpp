// The harness's clock, and cocotb's place in it.
//
// Between two steps cocotb has its usual regions at every edge of the clock. While the harness is busy nobody has anything to
// say until the step is done, so the edges follow each other here, and cocotb is asked again as `busy` falls. That is why a
// step runs at the speed of the bare model. What the step made leaves as files, a memory as it lies in the model: words from
// the lowest byte up, each in 1, 2, 4 or 8 bytes, or in fours of them.
//
// The regions are those of IEEE 1800-2017, 4.4, as Verilator's VPI offers them.
#include <cstdio>

#include "Vtop.h"
#include "Vtop___024root.h"
#include "verilated.h"
#include "verilated_vpi.h"

static const vluint64_t EDGE = 5;  // time units from one edge of the clock to the next

static vluint64_t now = 0;

double sc_time_stamp() { return now; }

extern "C" void vlog_startup_routines_bootstrap(void);

// Callbacks on values may change values, so they are called until there are none.
static void settle_values() {
    while (VerilatedVpi::callValueCbs()) {
    }
}

template <class Memory>
static void dump(const char* path, const Memory& memory) {
    FILE* const file = fopen(path, "wb");
    if (!file || fwrite(&memory, sizeof memory, 1, file) != 1 || fclose(file)) vl_fatal(__FILE__, __LINE__, "", path);
}

// The vectors of a step that is done, before anybody is told of it.
static void hand_over(const Vtop& top) {
    static CData handed = 0;
    const Vtop___024root& model = *top.rootp;
    if (model.harness__DOT__done == handed) return;
    handed = model.harness__DOT__done;
    dump("weights.out.bin", model.harness__DOT__weight_memory);
    dump("update.out.bin", model.harness__DOT__update_memory);
}

// Everything of the present time: the model and what cocotb writes into it, until neither has more to say.
static void settle(Vtop& top) {
    do {
        do {
            top.eval_step();
            hand_over(top);
            VerilatedVpi::clearEvalNeeded();
            VerilatedVpi::doInertialPuts();
            settle_values();
        } while (VerilatedVpi::evalNeeded());
        VerilatedVpi::callCbs(cbReadWriteSynch);
        VerilatedVpi::doInertialPuts();
        settle_values();
    } while (VerilatedVpi::evalNeeded());
    top.eval_end_step();
    VerilatedVpi::callCbs(cbReadOnlySynch);
}

static vluint64_t next_edge = EDGE;

static void edge(Vtop& top) {
    now = next_edge;
    next_edge += EDGE;
    top.clk ^= 1;
}

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Vtop top("");
    Verilated::fatalOnVpiError(false);  // or a name that is not there would end the simulation
#if VM_TRACE
    Verilated::traceEverOn(true);
#endif
    top.clk = 0;
    vlog_startup_routines_bootstrap();
    Verilated::addExitCb([](void*) { VerilatedVpi::callCbs(cbEndOfSimulation); }, nullptr);
    VerilatedVpi::callCbs(cbStartOfSimulation);
    settle_values();

    while (!Verilated::gotFinish()) {
        settle(top);
        if (top.busy) {
            do {
                edge(top);
                top.eval();
            } while (top.busy && !Verilated::gotFinish());
            continue;
        }
        const vluint64_t deadline = VerilatedVpi::cbNextDeadline();
        if (deadline < next_edge)
            now = deadline;
        else
            edge(top);
        VerilatedVpi::callCbs(cbNextSimTime);
        settle_values();
        VerilatedVpi::callTimedCbs();
        settle_values();
    }
    top.final();
    VerilatedVpi::callCbs(cbEndOfSimulation);
    return Verilated::threadContextp()->errorCount() > 0;
}
