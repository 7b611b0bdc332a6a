  constexpr int CH = @CHUNK@, NC = K / CH, PAD = 4 / sizeof(T), STRIDE = NC + PAD;
  @STAGE@
  auto at = [](int i) { return (i % CH) * STRIDE + i / CH; };
  int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
  int first = blockIdx.x * (THREADS / 32) * ROWS;
  int matrix = @MATRIX@;
  @PROLOGUE@
  __syncthreads();
  int row = first + warp * ROWS;
  if (row >= TOTAL) return;
  const @WTYPE@* w; const T* s; const T* b; int local;
  @SELECT@
  float acc[PAIRS * ROWS];
  for (int r = 0; r < PAIRS * ROWS; r++) acc[r] = 0.0f;
  #pragma unroll 1
  for (int c = lane; c < NC; c += 32) {
    float v[CH];
    float total = 0.0f;
    #pragma unroll
    for (int j = 0; j < CH; j++) { v[j] = f32(xs[j * STRIDE + c]); total += v[j]; }
    #pragma unroll
    for (int r = 0; r < PAIRS * ROWS; r++) {
      @POINTERS@
      @DOT@
    }
  }
  #pragma unroll
  for (int r = 0; r < PAIRS * ROWS; r++) acc[r] = warp_sum(acc[r]);
  if (lane == 0) {
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float y = acc[r];
      @EPILOGUE@
    }
  }
