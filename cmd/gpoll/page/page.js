// The page of gpoll. Each part stands for itself: it listens to live.js, which has the session.

import { begin } from './connection.js';
import './feed.js';
import './send.js';
import './demo.js';
import './lanes.js';
import './faults.js';
import './presence.js';
import './charts.js';
import './doctor.js';

begin();
