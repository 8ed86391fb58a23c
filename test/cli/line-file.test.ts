import { execFileSync, spawn } from 'node:child_process';
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import { LineFile } from '../../src/cli/line-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('a file written line by line', () => {
  it('appears under its name when it is whole', () => {
    const path = join(folder, 'whole.txt');
    const file = new LineFile(path);
    const long = 'x'.repeat(700_000);
    for (const line of ['first', long, long]) file.write(line);
    expect(existsSync(path)).toBe(false);
    file.finish();
    expect(readFileSync(path, 'utf8')).toBe(`first\n${long}\n${long}\n`);
    expect(readdirSync(folder)).toEqual(['whole.txt']);
  });

  it('leaves nothing behind when it is given up', () => {
    const before = readdirSync(folder);
    const file = new LineFile(join(folder, 'given-up.txt'));
    file.write('first');
    file.discard();
    expect(readdirSync(folder)).toEqual(before);
  });

  it('says which file cannot be written', () => {
    expect(() => new LineFile(join(folder, 'no', 'folder.txt'))).toThrow(InputError);
    expect(() => new LineFile(join(folder, 'no', 'folder.txt'))).toThrow(/cannot write .*folder\.txt/);
    const before = readdirSync(folder);
    expect(() => new LineFile(folder)).toThrow(/cannot write .*: it is not the name of a file/);
    expect(() => new LineFile('')).toThrow(InputError);
    expect(readdirSync(folder)).toEqual(before);
  });

  it('may be a pipe, which stays one', async () => {
    const path = join(folder, 'pipe');
    execFileSync('mkfifo', [path]);
    const reader = spawn('cat', [path]);
    const read = text(reader.stdout);
    const file = new LineFile(path);
    file.write('first');
    file.finish();
    expect(await read).toBe('first\n');
    expect(lstatSync(path).isFIFO()).toBe(true);
  });
});
