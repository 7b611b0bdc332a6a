// The scheduler of emulator.h: threads of a block take turns, from barrier to barrier. The next block starts when one
// has ended, or only sleeps: then it waits for the others.
#define _XOPEN_SOURCE 700
#define _DARWIN_C_SOURCE
#include "emulator.h"
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>
#include <vector>

struct Fiber { jmp_buf state; ucontext_t first; bool started = false, done = false; };
struct Gate { int waiting = 0, members = 0; long generation = 0; };
struct Block {
  std::vector<Fiber> fibers;
  Gate all;
  std::vector<Gate> warps;
  std::vector<int> parity;
  std::vector<float> lanes[2];
  char* stacks = nullptr;
};
static Block* here;
static jmp_buf scheduler;
static int current;
static long steps;  // what threads did but wait
static void (*body)();

static void yield_() { if (!_setjmp(here->fibers[current].state)) _longjmp(scheduler, 1); }
static void arrive(Gate& gate) {
  long mine = gate.generation;
  steps++;
  if (++gate.waiting >= gate.members) { gate.waiting = 0; gate.generation++; return; }
  while (gate.generation == mine) yield_();
  steps++;
}
static void leave(Gate& gate) {
  gate.members--;
  if (gate.members > 0 && gate.waiting >= gate.members) { gate.waiting = 0; gate.generation++; }
}
extern "C" {
Index blockIdx, threadIdx;
void __syncthreads() { arrive(here->all); }
void rest(unsigned) { yield_(); }
float exchanged(float v, int mask) {
  int me = current, side = here->parity[me] ^= 1;
  here->lanes[side][me] = v;
  arrive(here->warps[me / 32]);
  return here->lanes[side][(me & ~31) | ((me % 32) ^ mask)];
}
}
static void enter() {
  body();
  steps++;
  here->fibers[current].done = true;
  leave(here->all);
  leave(here->warps[current / 32]);
  _longjmp(scheduler, 1);
}
// Lets every thread of a block that has not ended run on until it waits; whether there was one.
static bool turn(int threads) {
  constexpr size_t size = 1 << 16;
  volatile bool alive = false;
  for (volatile int t = 0; t < threads; t = t + 1) {
    Fiber& fiber = here->fibers[t];
    if (fiber.done) continue;
    alive = true;
    current = t;
    threadIdx.x = t;
    if (_setjmp(scheduler)) continue;
    if (fiber.started) _longjmp(fiber.state, 1);
    fiber.started = true;
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = here->stacks + size * t;
    fiber.first.uc_stack.ss_size = size;
    makecontext(&fiber.first, enter, 0);
    setcontext(&fiber.first);
  }
  return alive;
}
static void start(Block& block, int threads) {
  block.fibers.assign(threads, Fiber());
  block.all = Gate{0, threads, 0};
  block.warps.assign(threads / 32, Gate{0, 32, 0});
  block.parity.assign(threads, 0);
  for (auto& side : block.lanes) side.assign(threads, 0.0f);
  block.stacks = static_cast<char*>(std::malloc(static_cast<size_t>(1 << 16) * threads));
}
// Runs until all have ended: 0, or until all that have not wait for each other: 1.
extern "C" int launch(int blocks, int threads, void (*kernel)()) {
  body = kernel;
  std::vector<Block> all(blocks);
  int left = blocks;
  for (bool moved = true; left > 0 && moved;) {
    moved = false;
    for (int b = 0; b < blocks; b++) {
      here = &all[b];
      blockIdx.x = b;
      if (here->fibers.empty()) start(*here, threads);
      else if (!here->stacks) continue;
      for (bool busy = true; busy && here->stacks;) {
        long before = steps;
        if (!turn(threads)) { std::free(here->stacks); here->stacks = nullptr; left--; }
        busy = steps != before;
        moved = moved || busy;
      }
    }
  }
  for (auto& block : all) std::free(block.stacks);
  return left > 0;
}
