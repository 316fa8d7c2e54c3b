// Holds custom resources against their schemas: a list of them as JSON on stdin; a line for each that is wrong.
//   node validate.mjs FOLDER-OF-INSTALL.SH < resources.json
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.argv[2]}/package.json`);

const PACKAGES = {
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

let wrong = 0;
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const [group] = resource.apiVersion.split("/");
  const path = `@kubernetes-models/${PACKAGES[group]}/${resource.apiVersion}/${resource.kind}`;
  const { [resource.kind]: Kind } = await import(pathToFileURL(require.resolve(path)));
  try {
    new Kind(resource).validate();
  } catch (error) {
    wrong += 1;
    console.log(`${resource.kind} ${resource.metadata.name}: ${error.message}`);
  }
}
process.exit(wrong ? 1 : 0);
