# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of a drill's report: thin names over module_utils/idr, where the work is done and tested."""

from __future__ import annotations

import base64

from ansible.errors import AnsibleFilterError
from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import lazy, load


def idr_report(records, any_verdict=False, journal_problems=None, versions=None):
    """The report of a drill."""
    report = load("idr.report")
    try:
        return report.idr_report(records, any_verdict, journal_problems, versions)
    except report.ReportError as error:
        raise AnsibleFilterError(str(error)) from error


def idr_signature(document, signature_file, public_key):
    """Whether a document was signed with a key; all three in base64, as M(ansible.builtin.slurp) returns them."""
    signature = load("idr.signature")
    files = [base64.b64decode(text) for text in (document, signature_file, public_key)]
    try:
        return signature.signature_facts(*files)
    except signature.SignatureProblem as problem:
        raise AnsibleFilterError(str(problem)) from problem


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "idr_report": idr_report,
            "idr_summary": lazy("idr.summary.idr_summary"),
            "idr_page": lazy("idr.page.idr_page"),
            "idr_signature": idr_signature,
        }
