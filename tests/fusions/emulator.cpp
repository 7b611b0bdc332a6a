// The scheduler of emulator.h: threads of a block take turns, from barrier to barrier; blocks run one after the other.
#define _XOPEN_SOURCE 700
#define _DARWIN_C_SOURCE
#include "emulator.h"
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>
#include <vector>

struct Fiber { jmp_buf state; ucontext_t first; bool started = false, done = false; char* stack = nullptr; };
struct Gate { int waiting = 0, members = 0; long generation = 0; };
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static int current;
static Gate block_gate;
static std::vector<Gate> warp_gates;
static std::vector<float> lanes[2];
static std::vector<int> parity;
static void (*body)();

static void yield_() { if (!_setjmp(fibers[current].state)) _longjmp(scheduler, 1); }
static void arrive(Gate& gate) {
  long mine = gate.generation;
  if (++gate.waiting >= gate.members) { gate.waiting = 0; gate.generation++; return; }
  while (gate.generation == mine) yield_();
}
static void leave(Gate& gate) {
  gate.members--;
  if (gate.members > 0 && gate.waiting >= gate.members) { gate.waiting = 0; gate.generation++; }
}
extern "C" {
Index blockIdx, threadIdx;
void __syncthreads() { arrive(block_gate); }
float exchanged(float v, int mask) {
  int me = current, side = parity[me] ^= 1;
  lanes[side][me] = v;
  arrive(warp_gates[me / 32]);
  return lanes[side][(me & ~31) | ((me % 32) ^ mask)];
}
}
static void enter() {
  body();
  fibers[current].done = true;
  leave(block_gate);
  leave(warp_gates[current / 32]);
  _longjmp(scheduler, 1);
}
extern "C" void launch(int blocks, int threads, void (*kernel)()) {
  body = kernel;
  fibers.assign(threads, Fiber());
  for (auto& side : lanes) side.assign(threads, 0.0f);
  constexpr size_t size = 1 << 16;
  char* stacks = static_cast<char*>(std::malloc(size * threads));
  for (int b = 0; b < blocks; b++) {
    blockIdx.x = b;
    block_gate = Gate{0, threads, 0};
    warp_gates.assign(threads / 32, Gate{0, 32, 0});
    parity.assign(threads, 0);
    for (int t = 0; t < threads; t++) { fibers[t].started = fibers[t].done = false; fibers[t].stack = stacks + size * t; }
    for (bool alive = true; alive;) {
      alive = false;
      for (int t = 0; t < threads; t++) {
        if (fibers[t].done) continue;
        alive = true;
        current = t;
        threadIdx.x = t;
        if (_setjmp(scheduler)) continue;
        if (fibers[t].started) _longjmp(fibers[t].state, 1);
        fibers[t].started = true;
        getcontext(&fibers[t].first);
        fibers[t].first.uc_stack.ss_sp = fibers[t].stack;
        fibers[t].first.uc_stack.ss_size = size;
        makecontext(&fibers[t].first, enter, 0);
        setcontext(&fibers[t].first);
      }
    }
  }
  std::free(stacks);
}
