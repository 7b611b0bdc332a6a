next_q[r] = reinterpret_cast<const uint4*>(wr)[(size_t)n * NC + c];
          next_s[r] = sr[(size_t)n * (K / 64) + c / 2];
          next_b[r] = br[(size_t)n * (K / 64) + c / 2];
