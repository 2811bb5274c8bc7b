import Cape from './art/cape.svg';
import Duffle from './art/duffle.svg';
import Fedora from './art/fedora.svg';
import Overcoat from './art/overcoat.svg';
import Peacoat from './art/peacoat.svg';
import Raincoat from './art/raincoat.svg';
import Trench from './art/trench.svg';
import Umbrella from './art/umbrella.svg';

export const products = [
  {
    sku: 'overture',
    number: 12,
    name: 'Overture',
    kind: 'Wool overcoat',
    price: 340,
    art: Overcoat,
    description:
      'The coat for arriving. Heavy bottle-green melton that hangs straight from the shoulder, horn buttons, and one pocket exactly the size of a programme.',
  },
  {
    sku: 'drizzle',
    number: 27,
    name: 'Drizzle',
    kind: 'Raincoat',
    price: 160,
    art: Raincoat,
    description:
      'Rubberised cotton in the yellow that taxis stop for. Taped seams, a hood that turns with your head, and snaps that close with one wet hand.',
  },
  {
    sku: 'encore',
    number: 31,
    name: 'Encore',
    kind: 'Trench coat',
    price: 290,
    art: Trench,
    description:
      'Back by popular demand. Double-breasted gabardine with a belt to knot, never to buckle, and a collar that stands up for itself.',
  },
  {
    sku: 'harbour',
    number: 45,
    name: 'Harbour',
    kind: 'Pea coat',
    price: 240,
    art: Peacoat,
    description:
      'Cut short for climbing ladders and buttoned twice against the wind. Brushed navy wool, brass buttons, pockets lined for cold hands.',
  },
  {
    sku: 'matinee',
    number: 58,
    name: 'Matinée',
    kind: 'Duffle coat',
    price: 260,
    art: Duffle,
    description:
      'For afternoons that get out of hand. Oxblood wool with rope loops and wooden toggles, and a checked lining that only you and the attendant will see.',
  },
  {
    sku: 'intermission',
    number: 63,
    name: 'Intermission',
    kind: 'Opera cape',
    price: 310,
    art: Cape,
    description:
      'Twenty minutes is enough to make an impression. Plum velour lined with rose satin, closed by a short brass chain.',
  },
  {
    sku: 'aria',
    number: 76,
    name: 'Aria',
    kind: 'Felt fedora',
    price: 85,
    art: Fedora,
    description:
      'Hand-blocked grey felt, a ribbon in oxblood, and a feather that may be taken out for more serious performances.',
  },
  {
    sku: 'downpour',
    number: 80,
    name: 'Downpour',
    kind: 'Umbrella',
    price: 65,
    art: Umbrella,
    description: 'Ten steel ribs, a cherry crook, and enough teal canopy for two who have just met.',
  },
];

export type Product = (typeof products)[number];

export const findProduct = (sku: string | undefined) => products.find((product) => product.sku === sku);

export const euros = (amount: number) =>
  new Intl.NumberFormat('en', {
    style: 'currency',
    currency: 'EUR',
    maximumFractionDigits: 0,
  }).format(amount);
