next_q[r] = reinterpret_cast<const uint4*>(wr)[(size_t)n * NC + c];
