// Sends one task with celery-node, as its README does, and prints its result as JSON.
const celery = require("celery-node");

const [broker, backend, task, ...args] = process.argv.slice(2);
const client = celery.createClient(broker, backend, "default");
client.conf.CELERY_RESULT_EXPIRES = 60000;
client
  .createTask(task)
  .applyAsync(args)
  .get(20000)
  .then((result) => console.log(JSON.stringify(result)))
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => client.disconnect());
