/** `tdxlab collect [--out PATH]`: what `doctor` looks at, put into an archive or a directory. */
import { formatBytes } from '../../abi/format-bytes.ts';
import { readMachine } from '../../survey/live/read-machine.ts';
import { manifestOf, writeCollection } from '../../survey/live/write-collection.ts';
import { toJson } from '../format.ts';
import { printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

/** @internal */
export const run: Run = async (_, options, io) => {
  const out = String(options.out ?? 'tdxlab-host.tar.gz');
  const collection = readMachine();
  writeCollection(collection, out);
  const manifest = manifestOf(collection);
  if (options.json === true) {
    io.out(toJson({ out, ...manifest }));
    return EXIT.done;
  }
  const sizes = Object.values(manifest.files);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  printWrapped(io, `${out}: ${sizes.length} files, ${formatBytes(bytes)}; manifest.json in it lists them.`);
  const denied = Object.entries(manifest.missing).filter(([, { state }]) => state === 'denied');
  if (denied.length > 0) {
    const names = denied.map(([path]) => path).join(', ');
    printWrapped(io, `This user may not read ${names}: collect as root to have them too.`);
  }
  printWrapped(io, `Look at it anywhere with: tdxlab doctor --root ${out}`);
  return EXIT.done;
};
