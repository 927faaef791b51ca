#include "comm/communicator.h"

#include <gtest/gtest.h>

#include <thread>

#include "comm/bytes.h"
#include "comm/sum.h"
#include "kedge/error.h"

namespace kedge {
namespace {

template <class F>
void on_ranks(int size, F f) {
  auto ranks = thread_ranks(size);
  std::vector<std::thread> threads;
  for (auto& rank : ranks) threads.emplace_back([&f, &rank] { f(*rank); });
  for (std::thread& thread : threads) thread.join();
}

TEST(ThreadRanks, GatherIsInTheOrderOfRanksAndBroadcastIsTheRoots) {
  for (const int size : {1, 2, 3, 5}) {
    on_ranks(size, [&](Communicator& ranks) {
      for (int round = 0; round < 50; ++round) {
        const std::vector<std::string> all = ranks.gather(std::to_string(10 * ranks.rank() + round));
        ASSERT_EQ(all.size(), ranks.is_root() ? static_cast<std::size_t>(size) : 0u);
        for (std::size_t r = 0; r < all.size(); ++r) EXPECT_EQ(all[r], std::to_string(10 * r + std::size_t(round)));
        const std::string text = ranks.is_root() ? "round " + std::to_string(round) : "not the root's";
        EXPECT_EQ(ranks.broadcast(text), "round " + std::to_string(round));
      }
    });
  }
}

TEST(ThreadRanks, AFailedRankEndsTheWaitOfTheOthers) {
  on_ranks(3, [&](Communicator& ranks) {
    ranks.barrier();
    if (ranks.rank() == 1) return ranks.abort(3);
    EXPECT_THROW(ranks.barrier(), Error);
  });
}

TEST(SumOverRanks, IsTheirSumInTheirOrderAtAllOfThem) {
  for (const int size : {1, 2, 3, 5}) {
    on_ranks(size, [&](Communicator& ranks) {
      const auto of = [](int rank, std::size_t i) { return 1.0f / static_cast<float>(3 + rank + static_cast<int>(i)); };
      std::vector<float> values(5), expected(5);
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = of(ranks.rank(), i);
        for (int rank = 0; rank < size; ++rank) expected[i] += of(rank, i);  // not associative: the order counts
      }
      sum_over_ranks(&ranks, std::span(values));
      EXPECT_EQ(values, expected);
      EXPECT_EQ(sum_over_ranks(&ranks, std::int64_t{1} << (40 + ranks.rank())), ((std::int64_t{1} << size) - 1) << 40);
      EXPECT_EQ(sum_over_ranks(&ranks, 0.5), 0.5 * size);
      sum_over_ranks(&ranks, std::span<double>());
    });
  }
  std::vector<double> alone{1.5, 2.5};
  sum_over_ranks(nullptr, std::span(alone));
  EXPECT_EQ(alone, (std::vector<double>{1.5, 2.5}));
}

TEST(SingleRank, IsTheRoot) {
  const auto ranks = single_rank();
  EXPECT_TRUE(ranks->is_root());
  EXPECT_EQ(ranks->gather("x"), std::vector<std::string>{"x"});
  EXPECT_EQ(ranks->broadcast("y"), "y");
}

TEST(Bytes, ReadBackInOrder) {
  ByteWriter writer;
  writer.put(1.5);
  writer.put(std::vector<std::int32_t>{1, -2, 3});
  writer.put(std::string_view("text"));
  writer.put(std::vector<float>{});
  ByteReader reader(writer.bytes());
  EXPECT_EQ(reader.take<double>(), 1.5);
  EXPECT_EQ(reader.take_list<std::int32_t>(), (std::vector<std::int32_t>{1, -2, 3}));
  EXPECT_EQ(reader.take_text(), "text");
  EXPECT_TRUE(reader.take_list<float>().empty());
  EXPECT_TRUE(reader.empty());
}

}  // namespace
}  // namespace kedge
