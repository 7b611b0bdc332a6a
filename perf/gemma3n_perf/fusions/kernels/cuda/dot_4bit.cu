          unsigned int words[4] = {q[r].x, q[r].y, q[r].z, q[r].w};
          float a = 0.0f;
          #pragma unroll
          for (int i = 0; i < 4; i++) {
            #pragma unroll
            for (int k = 0; k < 8; k++) {
              if constexpr (sizeof(T) == 4) {
                a += (float)((words[i] >> (4 * k)) & 15u) * v[8 * i + k];
              } else {
                // 1 + n/16 as bits: cheaper than converting an integer, exact enough for 16-bit inputs.
                unsigned int bits = k < 5 ? words[i] << (19 - 4 * k) : words[i] >> (4 * k - 19);
                a += __uint_as_float((bits & 0x00780000u) | 0x3f800000u) * v[8 * i + k];
              }
            }
          }
          if constexpr (sizeof(T) != 4) a = 16.0f * (a - total);
          acc[r] += f32(sc[r]) * a + f32(bi[r]) * total;
