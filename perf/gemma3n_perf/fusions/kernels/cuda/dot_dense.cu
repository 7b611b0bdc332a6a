      uint4 q = reinterpret_cast<const uint4*>(wr)[(size_t)n * NC + c];
      const T* e = reinterpret_cast<const T*>(&q);
      #pragma unroll
      for (int j = 0; j < CH; j++) acc[r] += f32(e[j]) * v[j];
