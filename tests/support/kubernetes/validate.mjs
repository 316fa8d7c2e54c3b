// Holds custom resources against their schemas: a list of them as JSON on stdin; a line for each that is wrong.
// In the folder of install.sh, as that is where the schemas are looked for:
//   node --input-type=module --eval "$(cat validate.mjs)" < resources.json
import { readFileSync } from "node:fs";

const PACKAGES = {
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

let wrong = 0;
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const [group] = resource.apiVersion.split("/");
  const path = `@kubernetes-models/${PACKAGES[group]}/${resource.apiVersion}/${resource.kind}`;
  const { [resource.kind]: Kind } = await import(path);
  try {
    new Kind(resource).validate();
  } catch (error) {
    wrong += 1;
    console.log(`${resource.kind} ${resource.metadata.name}: ${error.message}`);
  }
}
process.exit(wrong ? 1 : 0);
