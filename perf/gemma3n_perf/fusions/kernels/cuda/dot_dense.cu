          const T* e = reinterpret_cast<const T*>(&q[r]);
          #pragma unroll
          for (int j = 0; j < CH; j++) acc[r] += f32(e[j]) * v[j];
