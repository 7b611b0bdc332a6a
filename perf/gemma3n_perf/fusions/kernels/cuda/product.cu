  // A lane's chunk lies in one piece, read 16 bytes at a time; the pad lets eight lanes read without waiting for each other.
  constexpr int CH = @CHUNK@, NC = K / CH, WIDTH = 16 / sizeof(T), STRIDE = CH + (CH > WIDTH ? WIDTH : 0);
  constexpr int R = PAIRS * ROWS, WARPS = THREADS / 32;
  struct alignas(16) Piece { T e[WIDTH]; };
  @STAGE@
  auto at = [](int i) { return i / CH * STRIDE + i % CH; };
  int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
  int first = blockIdx.x * WARPS * ROWS;
  int matrix = @MATRIX@;
  @PROLOGUE@
  __syncthreads();
  // The next chunk is read while this one is multiplied, be it of the same rows or of a warp's next ones.
  constexpr int STEP = BLOCKS * WARPS * ROWS;
  const @WTYPE@* w; const T* s; const T* b;
  int aimed = 0, local = 0;
  uint4 next_q[R];
  T next_s[R], next_b[R];
  auto aim = [&](int row) {
    aimed = row;
    @SELECT@
  };
  auto fetch = [&](int c) {
    int row = aimed;
    #pragma unroll
    for (int r = 0; r < R; r++) {
      @POINTERS@
      @LOAD@
    }
  };
  int row = first + warp * ROWS;
  if (row < TOTAL) { aim(row); fetch(min(lane, NC - 1)); }
  #pragma unroll 1
  for (; row < TOTAL; row += STEP) {
    float acc[R];
    #pragma unroll
    for (int r = 0; r < R; r++) acc[r] = 0.0f;
    #pragma unroll 1
    for (int c = lane; c < NC; c += 32) {
      uint4 q[R];
      T sc[R], bi[R];
      #pragma unroll
      for (int r = 0; r < R; r++) { q[r] = next_q[r]; sc[r] = next_s[r]; bi[r] = next_b[r]; }
      if (c + 32 < NC) {
        fetch(c + 32);
      } else if (row + STEP < TOTAL) {
        aim(row + STEP);
        fetch(lane);
      }
      float v[CH];
      float total = 0.0f;
      #pragma unroll
      for (int i = 0; i < CH / WIDTH; i++) {
        Piece piece = reinterpret_cast<const Piece*>(xs + c * STRIDE)[i];
        #pragma unroll
        for (int j = 0; j < WIDTH; j++) { v[i * WIDTH + j] = f32(piece.e[j]); total += v[i * WIDTH + j]; }
      }
      #pragma unroll
      for (int r = 0; r < R; r++) {
        @DOT@
      }
    }
    #pragma unroll
    for (int r = 0; r < R; r++) acc[r] = warp_sum(acc[r]);
    if (lane == 0) {
      #pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float y = acc[r];
        @EPILOGUE@
      }
    }
  }
