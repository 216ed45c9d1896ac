"""What came out of a sweep: leaderboard, statistics, verdict, and the ways to print them."""
