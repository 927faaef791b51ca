#include "eval/python_random.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

using Indices = std::vector<std::size_t>;

// What CPython 3.11 prints: r = random.Random(SEED); print([r.sample(range(N), K) for ...]).
TEST(PythonRandom, EqualsCPython) {
  {
    PythonRandom random(1234u);
    EXPECT_EQ(random.sample(10, 5), (Indices{7, 1, 0, 9, 4}));
    EXPECT_EQ(random.sample(21, 5), (Indices{1, 2, 3, 11, 7}));
    EXPECT_EQ(random.sample(22, 5), (Indices{0, 11, 20, 19, 15}));
    EXPECT_EQ(random.sample(100, 6), (Indices{78, 59, 19, 11, 23, 91}));
    EXPECT_EQ(random.sample(85, 6), (Indices{14, 1, 64, 62, 31, 8}));
    EXPECT_EQ(random.sample(86, 6), (Indices{85, 69, 59, 8, 76, 11}));
    EXPECT_EQ(random.sample(5, 5), (Indices{4, 0, 1, 3, 2}));
    EXPECT_EQ(random.sample(1, 1), (Indices{0}));
    EXPECT_EQ(random.sample(1000, 26), (Indices{870, 363, 272, 255, 671, 955, 204, 464, 897, 542, 681, 19, 964,
                                                520, 72,  5,   341, 147, 727, 484, 673, 386, 171, 55,  78, 601}));
    EXPECT_EQ(random.sample(14042, 5), (Indices{8135, 2687, 1234, 9131, 3524}));
  }
  {
    PythonRandom random(0u);
    EXPECT_EQ(random.sample(10, 5), (Indices{6, 9, 0, 2, 4}));
    EXPECT_EQ(random.sample(21, 5), (Indices{15, 12, 9, 20, 11}));
    EXPECT_EQ(random.sample(22, 5), (Indices{18, 6, 16, 4, 9}));
    EXPECT_EQ(random.sample(100, 6), (Indices{17, 96, 12, 79, 32, 68}));
    EXPECT_EQ(random.sample(85, 6), (Indices{77, 18, 39, 12, 9, 42}));
    EXPECT_EQ(random.sample(86, 6), (Indices{60, 71, 12, 45, 55, 40}));
    EXPECT_EQ(random.sample(5, 5), (Indices{4, 1, 2, 3, 0}));
    EXPECT_EQ(random.sample(1, 1), (Indices{0}));
    EXPECT_EQ(random.sample(1000, 26), (Indices{63,  824, 940, 561, 937, 14,  95,  736, 860, 408, 727, 844, 803,
                                                684, 640, 1,   626, 505, 847, 888, 341, 249, 747, 333, 720, 891}));
    EXPECT_EQ(random.sample(14042, 5), (Indices{1031, 3130, 9298, 3632, 3909}));
  }
  {
    PythonRandom random(4294967295u);
    EXPECT_EQ(random.sample(10, 5), (Indices{9, 3, 8, 4, 6}));
    EXPECT_EQ(random.sample(21, 5), (Indices{9, 19, 10, 12, 8}));
    EXPECT_EQ(random.sample(22, 5), (Indices{11, 15, 13, 2, 6}));
    EXPECT_EQ(random.sample(100, 6), (Indices{78, 17, 61, 64, 46, 20}));
    EXPECT_EQ(random.sample(85, 6), (Indices{7, 42, 4, 48, 56, 72}));
    EXPECT_EQ(random.sample(86, 6), (Indices{32, 69, 75, 8, 0, 70}));
    EXPECT_EQ(random.sample(5, 5), (Indices{3, 1, 0, 2, 4}));
    EXPECT_EQ(random.sample(1, 1), (Indices{0}));
    EXPECT_EQ(random.sample(1000, 26), (Indices{429, 169, 926, 290, 513, 494, 665, 44,  405, 326, 83,  252, 740,
                                                832, 506, 442, 943, 487, 559, 243, 934, 722, 359, 231, 688, 693}));
    EXPECT_EQ(random.sample(14042, 5), (Indices{5612, 7775, 6512, 1708, 5316}));
  }
}

}  // namespace
}  // namespace kedge
