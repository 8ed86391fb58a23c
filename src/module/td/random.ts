import type { TdxModule } from '../tdx-module.ts';

/** `count` random 64-bit values from the CPU, or undefined when it delivers none. @public */
export function drawQwords(module: TdxModule, count: number): readonly bigint[] | undefined {
  const qwords: bigint[] = [];
  for (let i = 0; i < count; i++) {
    const qword = module.machine.entropy.next64();
    if (qword === undefined) return undefined;
    qwords.push(qword);
  }
  return qwords;
}
