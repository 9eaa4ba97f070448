// TPC-H Q6 and Q1 by hand in CUDA, over narrowed columns of the widths that Bowshot's chunks have: what the card's own toolkit makes of the
// same bytes. value = base + lane * factor; ship date 2 bytes, price 4, all else 1.
//
// As a program (nvcc): q6_q1 ROWS RUNS, prints JSON. Python's cupy compiles the kernels alone (KERNELS_ONLY) and drives them itself.
// Rows are a multiple of 4: every thread takes four neighbouring rows at a time, so that a warp's loads are whole lines.

#ifndef KERNELS_ONLY
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 128
#define SLOTS 6   // three return flags, two line statuses
#define VALUES 6  // sums of quantity, price, discounted price, charge, discount; rows

// Bases and factors as encoders would give them; lanes of the columns' minima are 0. Cents, hundredths, days since 1970-01-01.
#define SHIPDATE_BASE 8036u
#define QUANTITY_BASE 100u
#define QUANTITY_FACTOR 100u
#define PRICE_BASE 90000u

__device__ u64 mixed(u64 state) {
    state += 0x9E3779B97F4A7C15ull;
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBull;
    return state ^ (state >> 31);
}

// Rows of the ranges of TPC-H, each column even over its range.
extern "C" __global__ void fill(u16 *ship, u8 *discount, u8 *quantity, u8 *tax, u32 *price, u8 *flag, u8 *status, u64 rows) {
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 row = (u64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        u64 random = mixed(row);
        ship[row] = (u16)((random & 0xFFFF) % 2526);
        discount[row] = (u8)((random >> 16 & 0xFF) % 11);
        quantity[row] = (u8)((random >> 24 & 0xFF) % 50);
        tax[row] = (u8)((random >> 32 & 0xFF) % 9);
        flag[row] = (u8)((random >> 40 & 0xFF) % 3);
        status[row] = (u8)((random >> 48 & 0xFF) % 2);
        price[row] = (u32)(mixed(random) % 10404951ull);
    }
}

__device__ u64 warp_sum(u64 value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_down_sync(0xFFFFFFFFu, value, distance);
    }
    return value;
}

__device__ u64 revenue(u32 ship, u32 discount, u32 quantity, u32 price) {
    u32 day = ship + SHIPDATE_BASE;
    bool keeps = day >= 8766u && day < 9131u && discount >= 5u && discount <= 7u && QUANTITY_BASE + quantity * QUANTITY_FACTOR < 2400u;
    return keeps ? (u64)(PRICE_BASE + price) * discount : 0ull;
}

// sums[0]: revenue.
extern "C" __global__ void q6(const u16 *ship, const u8 *discount, const u8 *quantity, const u32 *price, u64 rows, u64 *sums) {
    const ushort4 *ships = (const ushort4 *)ship;
    const uchar4 *discounts = (const uchar4 *)discount, *quantities = (const uchar4 *)quantity;
    const uint4 *prices = (const uint4 *)price;
    u64 stride = (u64)gridDim.x * blockDim.x, total = 0;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < rows / 4; at += stride) {
        ushort4 s = ships[at];
        uchar4 d = discounts[at], q = quantities[at];
        uint4 p = prices[at];
        total += revenue(s.x, d.x, q.x, p.x) + revenue(s.y, d.y, q.y, p.y) + revenue(s.z, d.z, q.z, p.z) + revenue(s.w, d.w, q.w, p.w);
    }
    total = warp_sum(total);
    if ((threadIdx.x & 31) == 0) {
        atomicAdd(&sums[0], total);
    }
}

// One row into the accumulators of its thread, which lie THREADS apart so that neighbours use neighbouring banks.
__device__ void add_row(u64 *own, u32 ship, u32 discount, u32 quantity, u32 tax, u32 price, u32 flag, u32 status) {
    if (ship + SHIPDATE_BASE > 10471u) {
        return;
    }
    u64 *slot = own + (flag * 2 + status) * VALUES * THREADS;
    u64 whole = PRICE_BASE + price, discounted = whole * (100u - discount);
    slot[0 * THREADS] += QUANTITY_BASE + quantity * QUANTITY_FACTOR;
    slot[1 * THREADS] += whole;
    slot[2 * THREADS] += discounted;
    slot[3 * THREADS] += discounted * (100u + tax);
    slot[4 * THREADS] += discount;
    slot[5 * THREADS] += 1;
}

// sums[slot * VALUES + value]. A charge is under 1.2e11: 64 bits hold those of 150 million rows a slot at the least.
extern "C" __global__ void q1(const u16 *ship, const u8 *discount, const u8 *quantity, const u8 *tax, const u32 *price, const u8 *flag,
                              const u8 *status, u64 rows, u64 *sums) {
    __shared__ u64 totals[SLOTS * VALUES * THREADS];
    u64 *own = totals + threadIdx.x;
    for (int value = 0; value < SLOTS * VALUES; value++) {
        own[value * THREADS] = 0;
    }
    const ushort4 *ships = (const ushort4 *)ship;
    const uchar4 *discounts = (const uchar4 *)discount, *quantities = (const uchar4 *)quantity, *taxes = (const uchar4 *)tax;
    const uchar4 *flags = (const uchar4 *)flag, *statuses = (const uchar4 *)status;
    const uint4 *prices = (const uint4 *)price;
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x; at < rows / 4; at += stride) {
        ushort4 s = ships[at];
        uchar4 d = discounts[at], q = quantities[at], t = taxes[at], f = flags[at], l = statuses[at];
        uint4 p = prices[at];
        add_row(own, s.x, d.x, q.x, t.x, p.x, f.x, l.x);
        add_row(own, s.y, d.y, q.y, t.y, p.y, f.y, l.y);
        add_row(own, s.z, d.z, q.z, t.z, p.z, f.z, l.z);
        add_row(own, s.w, d.w, q.w, t.w, p.w, f.w, l.w);
    }
    // Each thread reads only what it wrote, so no barrier is needed before the warps add up.
    for (int value = 0; value < SLOTS * VALUES; value++) {
        u64 total = warp_sum(own[value * THREADS]);
        if ((threadIdx.x & 31) == 0) {
            atomicAdd(&sums[value], total);
        }
    }
}

// The same answers by the plainest means, row by row: sums[0 .. 36] Q1's, sums[36] Q6's.
extern "C" __global__ void plain(const u16 *ship, const u8 *discount, const u8 *quantity, const u8 *tax, const u32 *price, const u8 *flag,
                                 const u8 *status, u64 rows, u64 *sums) {
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 row = (u64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        u64 day = 8036 + ship[row], cents = 90000 + price[row], pieces = 100 + 100 * quantity[row];
        if (day >= 8766 && day < 9131 && discount[row] >= 5 && discount[row] <= 7 && pieces < 2400) {
            atomicAdd(&sums[36], cents * discount[row]);
        }
        if (day <= 10471) {
            u64 *slot = sums + (flag[row] * 2 + status[row]) * 6;
            u64 discounted = cents * (100 - discount[row]);
            atomicAdd(&slot[0], pieces);
            atomicAdd(&slot[1], cents);
            atomicAdd(&slot[2], discounted);
            atomicAdd(&slot[3], discounted * (100 + tax[row]));
            atomicAdd(&slot[4], (u64)discount[row]);
            atomicAdd(&slot[5], 1ull);
        }
    }
}

#ifndef KERNELS_ONLY

static void check(cudaError_t error, const char *what) {
    if (error != cudaSuccess) {
        fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}

template <typename T> static T *allocated(u64 count) {
    void *memory = nullptr;
    check(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc");
    return (T *)memory;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: q6_q1 ROWS RUNS\n");
        return 1;
    }
    u64 rows = strtoull(arguments[1], nullptr, 10) / 4 * 4;
    int runs = atoi(arguments[2]);
    cudaDeviceProp card;
    check(cudaGetDeviceProperties(&card, 0), "cudaGetDeviceProperties");
    u16 *ship = allocated<u16>(rows);
    u8 *discount = allocated<u8>(rows), *quantity = allocated<u8>(rows), *tax = allocated<u8>(rows);
    u8 *flag = allocated<u8>(rows), *status = allocated<u8>(rows);
    u32 *price = allocated<u32>(rows);
    u64 *sums = allocated<u64>(37);
    // Six blocks of 36 KiB of shared memory fit a multiprocessor of a data-centre card; Q6 uses none and takes more.
    int blocks_q1 = card.multiProcessorCount * 6, blocks_q6 = card.multiProcessorCount * 16;
    fill<<<blocks_q6, THREADS>>>(ship, discount, quantity, tax, price, flag, status, rows);
    check(cudaDeviceSynchronize(), "fill");
    u64 expected[37], given[37];
    check(cudaMemset(sums, 0, sizeof expected), "cudaMemset");
    plain<<<blocks_q6, THREADS>>>(ship, discount, quantity, tax, price, flag, status, rows, sums);
    check(cudaMemcpy(expected, sums, sizeof expected, cudaMemcpyDeviceToHost), "plain");
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "cudaEventCreate");
    check(cudaEventCreate(&end), "cudaEventCreate");
    double seconds[2] = {1e9, 1e9}, device_seconds[2] = {1e9, 1e9};
    bool ok[2] = {true, true};
    for (int query = 0; query < 2; query++) {
        // The first run warms.
        for (int run = 0; run <= runs; run++) {
            auto started = std::chrono::steady_clock::now();
            check(cudaMemsetAsync(sums, 0, sizeof given), "cudaMemsetAsync");
            check(cudaEventRecord(begin), "cudaEventRecord");
            if (query == 0) {
                q6<<<blocks_q6, THREADS>>>(ship, discount, quantity, price, rows, sums);
            } else {
                q1<<<blocks_q1, THREADS>>>(ship, discount, quantity, tax, price, flag, status, rows, sums);
            }
            check(cudaGetLastError(), "launch");
            check(cudaEventRecord(end), "cudaEventRecord");
            check(cudaMemcpy(given, sums, sizeof given, cudaMemcpyDeviceToHost), "cudaMemcpy");
            double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
            if (run > 0) {
                seconds[query] = took < seconds[query] ? took : seconds[query];
                device_seconds[query] = milliseconds / 1e3 < device_seconds[query] ? milliseconds / 1e3 : device_seconds[query];
            }
            ok[query] = ok[query] && (query == 0 ? given[0] == expected[36] : memcmp(given, expected, 36 * sizeof(u64)) == 0);
        }
    }
    printf("[{\"query\": \"q6\", \"seconds\": %.9f, \"device_seconds\": %.9f, \"rows\": %llu, \"bytes\": %llu, \"ok\": %s},\n", seconds[0],
           device_seconds[0], rows, rows * 8, ok[0] ? "true" : "false");
    printf(" {\"query\": \"q1\", \"seconds\": %.9f, \"device_seconds\": %.9f, \"rows\": %llu, \"bytes\": %llu, \"ok\": %s}]\n", seconds[1],
           device_seconds[1], rows, rows * 11, ok[1] ? "true" : "false");
    return 0;
}

#endif
