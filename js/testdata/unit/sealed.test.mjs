// The payloads of sealed.js are those of the Go package: both read sealed/testdata/vectors.json.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import { Box, Opener, SealedError } from "../../sealed.js";

const vectors = JSON.parse(await readFile(new URL("../../../sealed/testdata/vectors.json", import.meta.url), "utf8"));
const bytes = hex => Uint8Array.from(hex.match(/../g) ?? [], b => parseInt(b, 16));
const fails = code => e => e instanceof SealedError && e.code == code;
const key = bytes(vectors[0].key), other = bytes(vectors[1].key);

for (const v of vectors)
  test(`vector ${v.name}`, async () => {
    const box = await Box.with(bytes(v.key));
    assert.deepEqual(await box.open(v.topic, bytes(v.payload)), bytes(v.data));
    await assert.rejects(box.open(v.topic + "x", bytes(v.payload)), fails("forged"));
  });

test("what is sealed is opened, for its topic only, with its key only, unchanged only", async () => {
  const box = await Box.with(key);
  const sealed = await box.seal("news", "hello");
  assert.equal(sealed.length, 41 + 5);
  assert.equal(new TextDecoder().decode(await box.open("news", sealed)), "hello");
  assert.notDeepEqual(await box.seal("news", "hello"), sealed);
  await assert.rejects(box.open("sport", sealed), fails("forged"));
  await assert.rejects((await Box.with(other)).open("news", sealed), fails("key"));
  for (let i = 0; i < sealed.length; i++) {
    const changed = sealed.slice();
    changed[i] ^= 1;
    await assert.rejects(box.open("news", changed), fails(i == 0 ? "form" : i < 5 ? "key" : "forged"), `byte ${i}`);
  }
  for (const n of [0, 1, 40]) await assert.rejects(box.open("news", sealed.slice(0, n)), fails("form"), `${n} bytes`);
});

test("a further key opens what it sealed before, and seals nothing", async () => {
  const old = await (await Box.with(other)).seal("news", "old");
  const box = await Box.with(key, other);
  assert.equal(new TextDecoder().decode(await box.open("news", old)), "old");
  await assert.rejects((await Box.with(other)).open("news", await box.seal("news", "new")), fails("key"));
});

test("bad keys are refused with a sentence", async () => {
  await assert.rejects(Box.with(key.slice(1)), /key 1: it has 31 bytes/);
  await assert.rejects(Box.with(new Uint8Array(32)), /all of its bytes are the same/);
  await assert.rejects(Box.with(key, other, key), /key 3: it is the same as key 1/);
  await assert.rejects(Box.with(42), /a payload is a string/);
});

test("an Opener opens each payload once, and none that is too old to tell", async () => {
  const box = await Box.with(key), opener = box.newOpener();
  const first = await box.seal("news", "1");
  await opener.open("news", first);
  await assert.rejects(opener.open("news", first), fails("replayed"));
  await assert.rejects(opener.open("sport", first), fails("forged"));
  await opener.open("news", await box.seal("news", "2"));
  await box.open("news", first); // a Box opens it again
});

test("an Opener that has forgotten a payload takes none of its time", async () => {
  const real = Date.now;
  try {
    let at = 1_700_000_000_000;
    Date.now = () => at;
    const box = await Box.with(key), opener = new Opener(box, 100);
    const first = await box.seal("", ""), late = await box.seal("", "");
    at++;
    await opener.open("", first);
    for (let i = 0; i < 100; i++) await opener.open("", await box.seal("", ""));
    await assert.rejects(opener.open("", first), fails("replayed"));
    await assert.rejects(opener.open("", late), fails("replayed"));
    await opener.open("", await box.seal("", ""));
  } finally {
    Date.now = real;
  }
});
