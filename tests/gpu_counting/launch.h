/* The launches, as functions for ctypes. */
template <class Kernel> static void launch(int blocks, Kernel kernel)
{
    std::barrier<> all(THREADS);
    meeting = &all;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < THREADS; t++)
        threads.emplace_back([&, t] {
            threadIdx.x = t;
            for (int block = 0; block < blocks; block++) {
                blockIdx.x = block;
                kernel();
                all.arrive_and_wait();
            }
        });
    for (auto &thread : threads)
        thread.join();
}

extern "C" {
void run_extremes(int blocks, const Tensor *tensors, const Work *work, int *keys)
{
    launch(blocks, [&] { extremes(tensors, work, keys); });
}
void run_histograms(int blocks, const Tensor *tensors, const Work *work, const double *factors, unsigned long long *counts)
{
    launch(blocks, [&] { histograms(tensors, work, factors, counts); });
}
void run_unit_sums(int blocks, const View *views, const Work *work, long long channels, Channel *parts)
{
    launch(blocks, [&] { unit_sums(views, work, channels, parts); });
}
void run_merge_groups(int blocks, const int *groups, long long channels, Channel *parts)
{
    launch(blocks, [&] { merge_groups(groups, channels, parts); });
}
}
