// Fetches and completes jobs in batches, with the numbers that its documentation has on the page about performance.
const concurrentJobs = Number(process.env.CONCURRENT_JOBS);

module.exports = {
  worker: {
    concurrentJobs,
    maxPoolSize: concurrentJobs + 1,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};
