// The input as it is, from X_AT on: 16 bytes at a time.
  constexpr int WIDE = 16 / sizeof(T);
  #pragma unroll 1
  for (int i = tid * WIDE; i < K; i += THREADS * WIDE) {
    uint4 read = *reinterpret_cast<const uint4*>(x + X_AT + i);
    const T* e = reinterpret_cast<const T*>(&read);
    #pragma unroll
    for (int j = 0; j < WIDE; j++) xs[at(i + j)] = e[j];
  }
