      uint4 q = reinterpret_cast<const uint4*>(wr)[(size_t)n * NC + c];
      float sc = f32(sr[(size_t)n * (K / 64) + c / 2]), bi = f32(br[(size_t)n * (K / 64) + c / 2]);
      unsigned int words[4] = {q.x, q.y, q.z, q.w};
      float a = 0.0f;
      #pragma unroll
      for (int m = 0; m < 4; m++) {
        #pragma unroll
        for (int k = 0; k < 8; k++) {
          if constexpr (sizeof(T) == 4) {
            a += (float)((words[m] >> (4 * k)) & 15u) * v[8 * m + k];
          } else {
            // 1 + n/16 as bits: cheaper than converting an integer, exact enough for 16-bit inputs.
            unsigned int bits = k < 5 ? words[m] << (19 - 4 * k) : words[m] >> (4 * k - 19);
            a += __uint_as_float((bits & 0x00780000u) | 0x3f800000u) * v[8 * m + k];
          }
        }
      }
      if constexpr (sizeof(T) != 4) a = 16.0f * (a - total);
      acc[r] += sc * a + bi * total;
