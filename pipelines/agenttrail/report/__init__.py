"""The report: what an analyst opens, as pages that need nothing but a browser.

``reading`` brings together what is told of each incident, ``drawing`` puts its timeline on one axis, ``incident_page``
and ``overview`` say what stands on the pages, ``pages`` turns that into HTML, ``writer`` publishes it.
"""
