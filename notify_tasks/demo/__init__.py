"""`notify demo`: the whole system on this machine, notifications over every channel, and a worker that is killed.

* `cast`: who gets what, and how each must end;
* `producer`: the process that calls `send_notification.delay`;
* `running`: the folder's lock and environment file, by which other commands find a running demo;
* `stage`: servers, far end, workers, beat, gateway and Flower;
* `story`: what happens, in order;
* `showing`: live, on a terminal or in plain lines;
* `verdict`: whether everything ended as it should.
"""
