import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  exports: Record<string, string>;
};
const floors = Object.entries(exports).filter(([, file]) => file.endsWith('/index.ts'));

/** Something of each floor that a program starts with. */
const ENTRY_POINTS: Readonly<Record<string, readonly string[]>> = {
  './abi': ['STATUS', 'TDH', 'decodeStatus', 'KernelError'],
  './machine': ['Machine'],
  './survey': ['readHost', 'readHostFiles', 'validateMachine'],
  './kernel': ['HostKernel', 'Sysfs', 'constructTdmrs', 'DEFAULT_POLICY'],
  './kvm': ['loadKvm', 'Vm', 'Vcpu', 'PLAIN', 'SW_PROTECTED'],
  './module': ['TdxModule', 'RELEASES', 'loadModule', 'SeamLoader'],
  './hypervisor': ['PkvmHypervisor', 'Ownership', 'PAGE_STATE'],
  './vmm': ['readTdvf', 'measureImage', 'layOutTd', 'buildTdHob'],
  './lab': ['createHost', 'planHost', 'explain', 'replayFiles'],
};

/** Names that a file exports, with the tag of the docstring before each. */
function exportsOf(file: string): ReadonlyMap<string, string> {
  const text = readFileSync(file, 'utf8');
  const declarations = text.matchAll(/^export (?:async )?(?:const|function\*?|class|interface|type) (\w+)/gm);
  return new Map(
    [...declarations].map((match) => {
      const before = text.slice(0, match.index);
      const isPublic = before.lastIndexOf('@public') > before.lastIndexOf('@internal');
      return [match[1]!, isPublic ? '@public' : '@internal'];
    }),
  );
}

/** What an index makes reachable, as `file: name tag`. */
function reachable(index: string): readonly string[] {
  const statements = readFileSync(index, 'utf8').matchAll(
    /export (?:type )?(\*|\{[^}]*\}) from '(\.[^']+)'/g,
  );
  return [...statements].flatMap(([, what, path]) => {
    const tags = exportsOf(join(dirname(index), path!));
    const named = [...what!.matchAll(/\b(?!type\b)(\w+)/g)].map((match) => match[1]!);
    const names = what === '*' ? [...tags.keys()] : named;
    return names.map((name) => `${path}: ${name} ${tags.get(name) ?? 'missing'}`);
  });
}

describe('sub-path exports', () => {
  it('are one per floor', () => {
    expect(floors.map(([name]) => name)).toEqual(Object.keys(ENTRY_POINTS));
  });

  it('can be imported by name, each with its entry points', () => {
    const program = `
      const names = {};
      for (const path of ${JSON.stringify(floors.map(([name]) => name))})
        names[path] = Object.keys(await import(path.replace('.', 'tdxlab')));
      console.log(JSON.stringify(names));`;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], { cwd: ROOT });
    const names = JSON.parse(output.toString()) as Record<string, string[]>;
    for (const [path, wanted] of Object.entries(ENTRY_POINTS)) {
      expect(names[path]).toEqual(expect.arrayContaining([...wanted]));
    }
  });

  it.each(floors)('%s offers nothing internal', (_, file) => {
    const offered = reachable(join(ROOT, file));
    expect(offered.length).toBeGreaterThan(5);
    expect(offered.filter((line) => !line.endsWith('@public'))).toEqual([]);
  });
});
