"""What is in an image, as SPDX 2.3: Debian's packages and Python's."""

import json
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import Any


def debian(status: str) -> list[tuple[str, str]]:
    """Names and versions out of dpkg's status file."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph.strip())
        if fields["Package"] and fields["Version"]:
            found.append((fields["Package"], fields["Version"]))
    return sorted(found)


def python(folder: Path) -> list[tuple[str, str]]:
    """Names and versions of what is installed in a folder."""
    found = []
    for file in folder.glob("*.dist-info/METADATA"):
        fields = HeaderParser().parsestr(file.read_text())
        found.append((fields["Name"], fields["Version"]))
    return sorted(found)


def spdx(name: str, created: str, packages: dict[str, list[tuple[str, str]]]) -> bytes:
    """`packages`: by the kind in a package URL, such as `deb/debian` or `pypi`."""
    listed: list[dict[str, Any]] = []
    for kind, those in packages.items():
        for package, version in those:
            identity = re.sub(r"[^A-Za-z0-9.-]", "-", f"{kind}-{package}-{version}")
            listed.append(
                {
                    "SPDXID": f"SPDXRef-{identity}",
                    "name": package,
                    "versionInfo": version,
                    "downloadLocation": "NOASSERTION",
                    "filesAnalyzed": False,
                    "externalRefs": [
                        {
                            "referenceCategory": "PACKAGE-MANAGER",
                            "referenceType": "purl",
                            "referenceLocator": f"pkg:{kind}/{package}@{version}",
                        }
                    ],
                }
            )
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://ebpf-lb.io/sbom/{name}/{created}",
        "creationInfo": {"created": created, "creators": ["Tool: make image"]},
        "packages": listed,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": one["SPDXID"],
            }
            for one in listed
        ],
    }
    return json.dumps(document, indent=1).encode()
