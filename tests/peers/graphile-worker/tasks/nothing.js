// The job: it does nothing.
module.exports = () => {};
