/**
 * Random tests draw from one seed, so that a run repeats: a fixed one in the normal suite, a fresh one in the slow
 * suite, TDXLAB_SEED in either where it is set. fast-check prints seed and path of a failing run.
 */
import fc from 'fast-check';

const FIXED = 20_240_129;
const fresh = process.env.TDXLAB_FRESH_SEED === '1' ? Date.now() % 0x7fff_ffff : FIXED;

fc.configureGlobal({ seed: Number(process.env.TDXLAB_SEED ?? fresh) });
