// What a user of the JavaScript client does: objects, patches, watches, an informer, exec.
//
// `client.mjs objects` needs a control plane only; `client.mjs exec NAMESPACE POD` needs a running pod.
// The client is in the folder that SKEP_CLIENT_MODULES names.

import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { pathToFileURL } from 'node:url';

const modules = pathToFileURL(`${process.env.SKEP_CLIENT_MODULES}/`);
const k8s = await import(new URL('@kubernetes/client-node/dist/index.js', modules));

const namespace = 'javascript-client';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

async function refused(call, code, text) {
    await assert.rejects(call, (error) => error.code === code && error.body.includes(text));
}

// Resolves when `events` holds everything wanted, or throws after a while.
async function eventually(what, holds) {
    for (let i = 0; i < 300; i++) {
        if (holds()) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail(`${what}: not in time`);
}

async function crud() {
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    const body = { metadata: { name: 'a', labels: { app: 'a' } }, data: { a: '1' } };
    const made = await core.createNamespacedConfigMap({ namespace, body });
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    await refused(() => core.createNamespacedConfigMap({ namespace, body }), 409, 'AlreadyExists');
    await refused(() => core.readNamespacedConfigMap({ namespace, name: 'none' }), 404, 'not found');
    const patch = async (type, body) =>
        (
            await core.patchNamespacedConfigMap(
                { namespace, name: 'a', body, fieldManager: 'js', force: type === k8s.PatchStrategy.ServerSideApply || undefined },
                k8s.setHeaderOptions('Content-Type', type),
            )
        ).data;
    assert.deepEqual(await patch(k8s.PatchStrategy.StrategicMergePatch, { data: { b: '2' } }), { a: '1', b: '2' });
    assert.deepEqual(await patch(k8s.PatchStrategy.MergePatch, { data: { a: null } }), { b: '2' });
    assert.deepEqual(await patch(k8s.PatchStrategy.JsonPatch, [{ op: 'replace', path: '/data/b', value: '3' }]), { b: '3' });
    const applied = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { c: '4' } };
    assert.deepEqual(await patch(k8s.PatchStrategy.ServerSideApply, applied), { b: '3', c: '4' });
    made.data = { stale: 'yes' };
    await refused(() => core.replaceNamespacedConfigMap({ namespace, name: 'a', body: made }), 409, 'has been modified');
    const list = await core.listNamespacedConfigMap({ namespace, labelSelector: 'app=a' });
    assert.deepEqual(list.items.map((item) => item.metadata.name), ['a']);
}

async function informs() {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace }));
    const seen = [];
    for (const event of ['add', 'update', 'delete']) {
        informer.on(event, (object) => seen.push(`${event} ${object.metadata.name}`));
    }
    await informer.start();
    assert.equal(informer.get('a', namespace).data.c, '4');
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'b' } } });
    await eventually('the informer adds', () => seen.includes('add b'));
    await core.patchNamespacedConfigMap(
        { namespace, name: 'b', body: { data: { x: 'y' } } },
        k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
    );
    await eventually('the informer updates', () => seen.includes('update b') && informer.get('b', namespace).data.x === 'y');
    await core.deleteNamespacedConfigMap({ namespace, name: 'b' });
    await eventually('the informer deletes', () => seen.includes('delete b') && !informer.get('b', namespace));
    await informer.stop();
}

async function watches() {
    const seen = [];
    const watch = new k8s.Watch(config);
    const request = await watch.watch(
        '/api/v1/namespaces',
        { allowWatchBookmarks: true, fieldSelector: `metadata.name=${namespace}` },
        (type, object) => seen.push(`${type} ${object.metadata.name}`),
        () => {},
    );
    await eventually('the watch shows', () => seen.includes(`ADDED ${namespace}`));
    request.abort();
}

async function generic() {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const meta = { name: 'generic', namespace };
    const service = { apiVersion: 'v1', kind: 'Service', metadata: meta, spec: { ports: [{ port: 80 }] } };
    const made = await objects.create(service);
    assert.match(made.spec.clusterIP, /^\d/);
    const read = await objects.read({ apiVersion: 'v1', kind: 'Service', metadata: meta });
    read.metadata.labels = { touched: 'yes' };
    assert.equal((await objects.replace(read)).metadata.labels.touched, 'yes');
    await objects.delete({ apiVersion: 'v1', kind: 'Service', metadata: meta });
    const version = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.equal(version.major, '1');
}

async function exec(namespace, pod) {
    const read = await core.readNamespacedPod({ namespace, name: pod });
    const run = (command) =>
        new Promise((resolve, reject) => {
            let said = '';
            const out = new Writable({
                write(piece, _, done) {
                    said += piece;
                    done();
                },
            });
            const status = (status) => resolve([said.trim(), status]);
            new k8s.Exec(config)
                .exec(namespace, pod, read.spec.containers[0].name, command, out, out, null, false, status)
                .catch(reject);
        });
    const [said, fine] = await run(['echo', 'hello']);
    assert.equal(said, 'hello');
    assert.equal(fine.status, 'Success');
    const [, failed] = await run(['sh', '-c', 'exit 3']);
    assert.equal(failed.details.causes[0].message, '3');
}

if (process.argv[2] === 'objects') {
    await crud();
    await informs();
    await watches();
    await generic();
    await core.deleteNamespace({ name: namespace });
} else {
    await exec(process.argv[3], process.argv[4]);
}
console.log('ok');
process.exit(0);
