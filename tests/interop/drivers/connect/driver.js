// serve ADDRESS, or client ADDRESS CASE...: see ../../README.md.
import { run } from './cases.js';
import { serve } from './server.js';

const [command, address, ...chosen] = process.argv.slice(2);

// What Node's sockets call an address.
function socket() {
  const [scheme, rest] = address.split(/:(.*)/);
  if (scheme === 'unix') return { path: rest };
  if (scheme === 'unix-abstract') return { path: `\0${rest}` };
  return { host: scheme, port: Number(rest) };
}

if (command === 'serve') {
  serve(socket(), address);
} else if (command === 'client') {
  process.exit(await run(socket(), chosen) ? 0 : 1);
} else {
  throw new Error(`${command}: serve or client`);
}
