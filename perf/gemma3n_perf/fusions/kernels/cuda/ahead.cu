// Asks for the first weights that this block will read: they come while it computes, or waits for others.
  int lane = threadIdx.x % 32, row = (blockIdx.x * (THREADS / 32) + threadIdx.x / 32) * ROWS;
  #pragma unroll 1
  for (int sweep = 0; sweep < 4 && row < TOTAL; sweep++, row += BLOCKS * (THREADS / 32) * ROWS) {
    const @WTYPE@* w; const T* s; const T* b; int local;
    @SELECT@
    if (lane == 0) ask(w, local, @ROW_BYTES@, ROWS);
    if (lane == 1) ask(s, local, @GROUP_BYTES@, ROWS);
    if (lane == 2) ask(b, local, @GROUP_BYTES@, ROWS);
    @PAIR@if (lane == 3) ask(w1, local, @ROW_BYTES@, ROWS);
    @PAIR@if (lane == 4) ask(s1, local, @GROUP_BYTES@, ROWS);
    @PAIR@if (lane == 5) ask(b1, local, @GROUP_BYTES@, ROWS);
  }
